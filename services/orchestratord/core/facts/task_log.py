"""The append-only output of a task, and cursors into it."""

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from llorch.errors import InvalidArgument, Reason

_CURSOR = re.compile(r"(\d{1,15})\.(\d{1,15})(?:\.([0-9a-f]{8}))?")


FIRST_EPOCH = 1
"""Of every log, until its task starts over. What a later one is depends on the clock, which may be set back, and on the
copy of the database that is put back: of two later ones, neither tells which was first.
"""


class Entry(Protocol):
    """What the log needs to know of an entry; the contract's `LogEntry` fits as it is."""

    @property
    def seq(self) -> int: ...
    @property
    def choice(self) -> int: ...
    @property
    def token_ids(self) -> Sequence[int]: ...


EntryT = TypeVar("EntryT", bound=Entry)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader goes on: `next_seq` in the log of `log_epoch`. A task that starts over gets a new log epoch.

    `digest` is that of the entries before it, by which the reader's are known to be those of the log. None: not told,
    as at the beginning, and by earlier releases.
    """

    log_epoch: int
    next_seq: int
    digest: int | None = None

    def __str__(self) -> str:
        told = "" if self.digest is None else f".{self.digest:08x}"
        return f"{self.log_epoch}.{self.next_seq}{told}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidArgument(
                Reason.INVALID_CURSOR,
                f"after: '{text[:40]}' is no cursor of this server; use the cursor of an event, or none to begin anew",
            )
        return cls(int(match[1]), int(match[2]), None if match[3] is None else int(match[3], 16))


@dataclass(frozen=True, slots=True)
class Packing(Generic[EntryT]):
    """How entries become bytes. What was packed apart and is joined is what was packed together."""

    pack: Callable[[Sequence[EntryT]], bytes]
    unpack: Callable[[bytes], Sequence[EntryT]]
    size: Callable[[EntryT], int]
    """About how many bytes of a packed block an entry takes."""
    digest: Callable[[EntryT, int], int]
    """The rolling digest after an entry, 32 bits; the second argument is that before it."""


BLOCK_ENTRIES = 256
BLOCK_BYTES = 32 * 1024
_BYTES_PER_INDEX = 8

_LEFT_REMEMBERED = 16
"""Attempts that write no more, of which it is known what they brought."""

_NO_ATTEMPTS: Mapping[str, int] = MappingProxyType({})
"""One for all logs: thousands are kept that no attempt writes to any more."""


@dataclass(slots=True)
class TaskLog(Generic[EntryT]):
    """Entries in order, without gaps, and nothing after the seal.

    As a rule one attempt writes. Where the worker of one is out of reach, another may begin beside it: the first of
    them to append decides, and from then on it is the only one.

    `first_index[seq]` is how many tokens of the same choice came before entry `seq`: the published index of its first
    token. `append` returns whether the entry was taken; a refused one is no error, it is a late message.

    All but the last entries are packed, in blocks: as they came, each takes many times its bytes. `size` is how many
    bytes the log takes, about.
    """

    packing: Packing[EntryT]
    log_epoch: int = FIRST_EPOCH
    first_index: "array[int]" = field(default_factory=lambda: array("I"))
    digests: "array[int]" = field(default_factory=lambda: array("I"))
    """The rolling digest after each entry."""
    sealed: bool = False
    was_found: bool = False
    """On a worker, at the start of the orchestrator."""
    size: int = 0
    _tokens_of_choice: dict[int, int] = field(default_factory=dict)
    _blocks: list[bytes] = field(default_factory=list)
    _begins: list[int] = field(default_factory=list)
    """The seq of the first entry of each block."""
    _tail: list[EntryT] = field(default_factory=list)
    """What is not packed yet."""
    _tail_bytes: int = 0
    _writers: Mapping[str, int] = field(default_factory=lambda: _NO_ATTEMPTS)
    """Attempts that may append, with the tokens that there were before each."""
    _left: Mapping[str, int] = field(default_factory=lambda: _NO_ATTEMPTS)
    """Attempts that may append no more, with the tokens that they brought."""

    def __len__(self) -> int:
        return len(self.first_index)

    @property
    def end(self) -> Cursor:
        return self.cursor_at(len(self))

    def cursor_at(self, seq: int) -> Cursor:
        return Cursor(self.log_epoch, seq, self.digests[seq - 1] if seq else None)

    @property
    def digest(self) -> int:
        """Of all entries; 0 if there are none."""
        return self.digests[-1] if self.digests else 0

    @property
    def writers(self) -> tuple[str, ...]:
        """The attempts that may append, in the order in which they began."""
        return tuple(self._writers)

    def begin_attempt(self, attempt_id: str) -> None:
        """From now on this attempt may append as well; it goes on where the log ends."""
        self._writers = {**self._writers, attempt_id: self.tokens}

    def end_attempt(self, attempt_id: str) -> None:
        """It may append no more."""
        if attempt_id in self._writers:
            brought = self.tokens - self._writers[attempt_id]
            self._writers = {writer: before for writer, before in self._writers.items() if writer != attempt_id}
            self._left = dict([*self._left.items(), (attempt_id, brought)][-_LEFT_REMEMBERED:])

    def append(self, attempt_id: str, entry: EntryT) -> bool:
        if self.sealed or attempt_id not in self._writers or entry.seq != len(self):
            return False
        if len(self._writers) > 1:
            for other in self.writers:
                if other != attempt_id:
                    self.end_attempt(other)
        self.digests.append(self.packing.digest(entry, self.digest))
        before = self._tokens_of_choice.get(entry.choice, 0)
        self.first_index.append(before)
        self._tail.append(entry)
        self._tokens_of_choice[entry.choice] = before + len(entry.token_ids)
        entry_bytes = self.packing.size(entry)
        self._tail_bytes += entry_bytes
        self.size += entry_bytes + _BYTES_PER_INDEX
        if self._tail_bytes >= BLOCK_BYTES or len(self._tail) >= BLOCK_ENTRIES:
            self._pack()
        return True

    def seal(self) -> None:
        """The terminal was appended: no entry follows."""
        self.sealed = True
        self._writers = self._left = _NO_ATTEMPTS
        self._pack()

    def packed(self) -> bytes:
        """All entries."""
        tail = self.packing.pack(self._tail) if self._tail else b""
        return b"".join((*self._blocks, tail))

    def block_of(self, seq: int) -> tuple[int, Sequence[EntryT]]:
        """Entries of which `seq` is one, with the seq of the first; they may be unpacked for this call."""
        begin = len(self) - len(self._tail)
        if seq >= begin:
            return begin, self._tail
        number = bisect_right(self._begins, seq) - 1
        return self._begins[number], self.packing.unpack(self._blocks[number])

    def _pack(self) -> None:
        if not self._tail:
            return
        self._begins.append(len(self) - len(self._tail))
        self._blocks.append(self.packing.pack(self._tail))
        self._tail, self._tail_bytes = [], 0

    def tokens_of_choice(self, choice: int) -> int:
        return self._tokens_of_choice.get(choice, 0)

    @property
    def tokens(self) -> int:
        """Of all choices."""
        return sum(self._tokens_of_choice.values())

    def tokens_of_attempt(self, attempt_id: str) -> int:
        """How many it has brought; 0 for one that is not known any more."""
        if attempt_id in self._writers:
            return self.tokens - self._writers[attempt_id]
        return self._left.get(attempt_id, 0)

    def choices(self) -> list[int]:
        """The choices that have output, in order."""
        return sorted(self._tokens_of_choice)

    def resume_at(self, cursor: Cursor) -> int:
        """The seq to read from, or an error for a cursor of another log or beyond the end of this one.

        A reader who has read nothing yet may go on in any log that follows: of a task that was only queued, no output
        is started over.
        """
        if cursor.next_seq == 0:
            return 0
        if cursor.log_epoch != self.log_epoch and self.log_epoch == FIRST_EPOCH and not self.was_found:
            raise _invalid(cursor, "was never given for this task, whose output was never started over")
        if cursor.log_epoch != self.log_epoch or not self._is_what_was_shown(cursor):
            raise InvalidArgument(
                Reason.STREAM_RESET,
                "after: the output that this cursor points into was started over; stream again without a cursor",
            )
        if cursor.next_seq > len(self):
            raise _invalid(cursor, "lies beyond the end of the output")
        return cursor.next_seq

    def _is_what_was_shown(self, cursor: Cursor) -> bool:
        """A log that was found on a worker may be that of another attempt than the one that was shown, or shorter."""
        if cursor.next_seq > len(self):
            return not self.was_found
        return cursor.digest is None or cursor.digest == self.digests[cursor.next_seq - 1]


def _invalid(cursor: Cursor, why: str) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_CURSOR,
        f"after: '{cursor}' {why}; use the cursor of an event of this task, or none to begin anew",
    )


class LogWindow(Generic[EntryT]):
    """The entries of a log, for one reader: it holds one block of them at a time."""

    def __init__(self, log: TaskLog[EntryT]) -> None:
        self.log = log
        self._begin = 0
        self._entries: Sequence[EntryT] = ()

    def __len__(self) -> int:
        return len(self.log)

    def __getitem__(self, seq: int) -> EntryT:
        if not 0 <= seq - self._begin < len(self._entries):
            self._begin, self._entries = self.log.block_of(seq)
        return self._entries[seq - self._begin]
