"""What the headers of an answer mean for a download that has some bytes already. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llorch.errors import FailedPrecondition, LlorchError, NotFound, PermissionDenied, Reason, Unavailable

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_LENGTH = re.compile(r"\d{1,19}", re.ASCII)
_TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Body:
    """`offset`: where the body's first byte belongs; `total`: length of the whole file, None if the server keeps it
    to itself; `validator`: a strong ETag, or empty.
    """

    offset: int
    total: int | None
    validator: str


class Interrupted(Unavailable):
    """The connection broke, or the server could not go on: trying again may help."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.UPSTREAM_UNAVAILABLE, message)


class RangeRefused(Interrupted):
    """What was asked for does not fit what the server has now: only a start from zero helps."""


def read_answer(host: str, status: int, headers: Mapping[str, str], asked_from: int) -> Body:
    """Raises what makes the answer useless: `Interrupted` where trying again may help."""
    if status not in (200, 206):
        raise _no_file(host, status)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise FailedPrecondition(
            Reason.MODEL_FILE_INVALID, f"{host} sends the file compressed ({encoding[:40]!r}), which was not asked for"
        )
    validator = _strong(headers.get("etag", ""))
    if status == 200:
        return Body(0, _length(host, headers), validator)
    return _partial(host, headers, asked_from, validator)


def _partial(host: str, headers: Mapping[str, str], asked_from: int, validator: str) -> Body:
    found = _RANGE.fullmatch(headers.get("content-range", ""))
    if found is None or not asked_from:
        raise RangeRefused(f"{host} sends a part of the file that was not asked for")
    first, last, total = (int(number) for number in found.groups())
    if first != asked_from or last != total - 1:
        raise RangeRefused(f"{host} sends another part of the file than was asked for")
    return Body(first, total, validator)


def _length(host: str, headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not _LENGTH.fullmatch(text):
        raise Interrupted(f"{host} does not answer as HTTP has it")
    return int(text)


def _strong(etag: str) -> str:
    """Only a strong one says that bytes are equal."""
    return etag if etag.startswith('"') and len(etag) <= 256 else ""


def _no_file(host: str, status: int) -> LlorchError:
    if status == 416:
        return RangeRefused(f"{host} has less of the file than is here already")
    if status in (404, 410):
        return NotFound(Reason.MODEL_FILE_MISSING, f"{host} has no such file (HTTP {status})")
    if status in (401, 403):
        return PermissionDenied(Reason.SOURCE_REFUSED, f"{host} does not give the file to this node (HTTP {status})")
    if status >= 500 or status in _TRY_AGAIN:
        return Interrupted(f"{host} can't serve the file now (HTTP {status})")
    return FailedPrecondition(Reason.SOURCE_REFUSED, f"{host} answers with HTTP {status} instead of the file")
