"""A stack that is deep enough, whatever the system gives to threads by default."""

import threading
from collections.abc import Callable
from typing import TypeVar

STACK_BYTES = 128 * 1024 * 1024
"""Address space alone: what is not used takes no memory."""

_Result = TypeVar("_Result")
_starting = threading.Lock()


def call_on_deep_stack(function: Callable[[], _Result]) -> _Result:
    """Calls it in a thread of its own, and waits. What it raises is raised here."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  it is not handled, only carried to where it belongs
            errors.append(error)

    thread = threading.Thread(target=call, name="deep stack")
    with _starting:
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
