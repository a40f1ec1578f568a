"""Running code that may never end: a chat template comes with a model file from anywhere."""

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class TimeIsUp(Exception):
    """The call took longer than it may."""


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """The function's result; raises TimeIsUp from inside of it, at a line of Python, when it takes longer.

    Works on any thread, other than a signal. A single long call into C is not interrupted.
    """
    deadline = time.monotonic() + seconds

    def check(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.monotonic() > deadline:
            raise TimeIsUp
        return check

    before = sys.gettrace()
    sys.settrace(check)
    try:
        return function()
    finally:
        sys.settrace(before)
