"""Options with a unit: `--for 3h`, `--vram-claim 11GiB`. A number alone would be taken for one or the other."""

from collections.abc import Callable
from typing import TypeVar

from llorch import quantities
from llorch.errors import invalid_field

T = TypeVar("T")


def milliseconds(option: str, text: str | None) -> int | None:
    return None if text is None else round(_read(option, text, quantities.seconds) * 1000)


def mib(option: str, text: str | None) -> int | None:
    return None if text is None else _read(option, text, quantities.mib)


def _read(option: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise invalid_field(option, f"{error}, unlike '{text}'") from None
