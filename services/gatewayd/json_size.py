"""How many values a JSON text has, without reading it as JSON: what is made of each costs far more than its bytes."""

import re

from llorch.errors import InvalidArgument, Reason
from llorch.options.generation import MAX_REQUEST_FIELDS

MAX_VALUES = 2 * MAX_REQUEST_FIELDS
"""A request within all other limits has fewer."""

_QUOTE = ord('"')

_AT_ONCE = 64 * 1024
"""Bytes that are looked through before other threads have their turn; they take about 1 ms."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_OUTSIDE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""Up to the begin of a string that does not end."""
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Up to the end of the string, or an escape that is cut."""


def check_values(text: bytes) -> None:
    """Raises REQUEST_TOO_LARGE. What is no JSON is left to the reader of it."""
    # Commas in strings count here too, so that most texts are not looked through.
    if _separators(text) > MAX_VALUES and _has_more(text, MAX_VALUES):
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"the body has more than {MAX_VALUES} values in its lists and objects; send less at once",
        )


def _has_more(text: bytes, most: int) -> bool:
    count = position = 0
    in_string = False
    while position < len(text):
        look_for = _INSIDE if in_string else _OUTSIDE
        found = look_for.match(text, position, position + _AT_ONCE)
        end = found.end() if found else position
        if not in_string:
            count += _separators(_STRING.sub(b"", text[position:end]))
            if count > most:
                return True
        if end < len(text) and text[end] == _QUOTE:
            in_string = not in_string
            end += 1
        elif end == position:
            # A single backslash at the end of the text.
            return False
        position = end
    return False


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"{") + text.count(b"[")
