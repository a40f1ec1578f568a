"""Sessions that a worker saves before it ends."""

import math
from collections.abc import Iterable, Mapping

from llama_orch.v2.saved_session_pb2 import SessionToSave
from llorch.errors import invalid_field
from llorch.saved_sessions import MOST_AT_ONCE, check_saved_session

_MS = 1000.0
_LONGEST_MS = 2**32 - 1
"""49 days."""


def to_sessions_to_save(sessions: Iterable[SessionToSave]) -> dict[str, float]:
    """For how many seconds each is kept, in the order of the message. Raises `InvalidArgument`."""
    wanted = list(sessions)
    if len(wanted) > MOST_AT_ONCE:
        raise invalid_field("save", f"names at most {MOST_AT_ONCE} sessions")
    return {check_saved_session(one.saved_session, "save.saved_session"): _kept_s(one) for one in wanted}


def from_sessions_to_save(keep_s: Mapping[str, float]) -> list[SessionToSave]:
    return [SessionToSave(saved_session=name, keep_ms=whole_ms(kept)) for name, kept in keep_s.items()]


def whole_ms(keep_s: float) -> int:
    """At least 1 for a time above 0, and at most what a message can say."""
    return math.ceil(min(keep_s * _MS, _LONGEST_MS))


def _kept_s(session: SessionToSave) -> float:
    if not session.keep_ms:
        raise invalid_field("save.keep_ms", "is at least 1")
    return session.keep_ms / _MS
