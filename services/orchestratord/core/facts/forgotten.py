"""Which finished tasks were there and are no longer kept, for the answer that says so. A few bytes per task."""

from dataclasses import dataclass, field
from hashlib import blake2b

_DIGEST_BYTES = 8


@dataclass(slots=True)
class ForgottenTasks:
    """The ids of the last `most`, as digests in a ring. A wrong "yes" is as likely as two of 2^64 being equal."""

    most: int = 100_000
    _digests: bytearray = field(default_factory=bytearray)
    _next: int = 0
    """Where the next one goes, in bytes."""

    def add(self, task_id: str) -> None:
        self._digests[self._next : self._next + _DIGEST_BYTES] = _digest(task_id)
        self._next = (self._next + _DIGEST_BYTES) % (self.most * _DIGEST_BYTES)

    def __contains__(self, task_id: str) -> bool:
        """Linear, at the speed of a search in memory; only for ids that are not kept."""
        digest = _digest(task_id)
        at = self._digests.find(digest)
        while at % _DIGEST_BYTES and at >= 0:  # the end of one and the beginning of the next
            at = self._digests.find(digest, at + 1)
        return at >= 0

    def __len__(self) -> int:
        return len(self._digests) // _DIGEST_BYTES


def _digest(task_id: str) -> bytes:
    return blake2b(task_id.encode(), digest_size=_DIGEST_BYTES).digest()
