"""Refusals of values that the contract's types can't hold: with the name of the field, and what it takes."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

from llorch.errors import InvalidArgument, invalid_field


def wrong_type(field: str, value: object, takes: str) -> InvalidArgument:
    """`takes` completes "give …"."""
    return invalid_field(field, f"is {reprlib.repr(value)} ({type(value).__name__}); give {takes}")


def unknown(field: str, name: object, known: Iterable[str]) -> InvalidArgument:
    """`name` is what the caller wrote, `field` where."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
    return invalid_field(field, f"is unknown; {remedy}")
