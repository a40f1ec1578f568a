"""JSON text in and out, strictly: what RFC 8259 allows and nothing that Python adds to it."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from llorch.errors import InvalidArgument, Reason

MAX_DEPTH = 100
MAX_DIGITS = 400
"""Of one number; the largest that is finite has 309 before its point."""

json_text: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode
"""A value as text. Raises ValueError for an infinite number."""


def encode_json(value: Any) -> bytes:
    """An error may repeat half of a surrogate pair that its client sent; it is shown as a question mark."""
    return json_text(value).encode(errors="replace")


def decode_json(text: bytes) -> Any:
    """Raises MALFORMED_REQUEST, which says where the text stops being JSON."""
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_int,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise _malformed(f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise _malformed(f"the body is not JSON at line {error.lineno}, column {error.colno}: {what}") from None
    except RecursionError:
        raise _too_deep() from None
    if _is_deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses two values under one name: JSON readers disagree on which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _malformed(f"the body has {twice!r} twice in one object")
    for name in found:
        if not name.isascii():
            _refuse_half_pair(name)
    return found


def _refuse_half_pair(name: str) -> None:
    """In a value it is refused where the value's place is known; descriptors can't be asked for such a name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _malformed(f"the body has the name {name!a}, which has half of a surrogate pair and is no text") from None


def _int(digits: str) -> int:
    _refuse_long(digits)
    return int(digits)


def _float(digits: str) -> float:
    _refuse_long(digits)
    return float(digits)


def _refuse_long(digits: str) -> None:
    """Reading one takes time with the square of its length."""
    if len(digits) > MAX_DIGITS:
        raise _malformed("the body has a number with too many digits")


def _refuse_constant(name: str) -> NoReturn:
    raise _malformed(f"the body has {name}, which is not JSON; numbers have to be finite")


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return any(isinstance(node, (dict, list)) for node in level)


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _too_deep() -> InvalidArgument:
    return _malformed(f"the body is nested more than {MAX_DEPTH} levels deep")


def _malformed(message: str) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, message)
