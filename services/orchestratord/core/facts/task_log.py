"""The append-only output of a task, and cursors into it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from llorch.errors import InvalidArgument, Reason

_CURSOR = re.compile(r"(\d{1,15})\.(\d{1,15})")


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
    """Where a reader goes on: `next_seq` in the log of `log_epoch`. A task that starts over gets a new log epoch."""

    log_epoch: int
    next_seq: int

    def __str__(self) -> str:
        return f"{self.log_epoch}.{self.next_seq}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidArgument(
                Reason.INVALID_CURSOR,
                f"after: '{text[:40]}' is no cursor of this server; use the cursor of an event, or none to begin anew",
            )
        return cls(int(match[1]), int(match[2]))


@dataclass(slots=True)
class TaskLog(Generic[EntryT]):
    """Entries in order, without gaps, from the current attempt only, and nothing after the seal.

    `first_index[seq]` is how many tokens of the same choice came before entry `seq`: the published index of its first
    token. `append` returns whether the entry was taken; a refused one is no error, it is a late message.
    """

    log_epoch: int = 1
    entries: list[EntryT] = field(default_factory=list)
    first_index: list[int] = field(default_factory=list)
    attempt_id: str | None = None
    sealed: bool = False
    _tokens_of_choice: dict[int, int] = field(default_factory=dict)
    _tokens_before: int = 0
    """Of earlier attempts than the current one."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def end(self) -> Cursor:
        return Cursor(self.log_epoch, len(self.entries))

    def begin_attempt(self, attempt_id: str) -> None:
        """From now on only this attempt may append; it goes on where the log ends."""
        self.attempt_id = attempt_id
        self._tokens_before = self.tokens

    def append(self, attempt_id: str, entry: EntryT) -> bool:
        if self.sealed or attempt_id != self.attempt_id or entry.seq != len(self.entries):
            return False
        before = self._tokens_of_choice.get(entry.choice, 0)
        self.first_index.append(before)
        self.entries.append(entry)
        self._tokens_of_choice[entry.choice] = before + len(entry.token_ids)
        return True

    def seal(self) -> None:
        """The terminal was appended: no entry follows."""
        self.sealed = True

    def tokens_of_choice(self, choice: int) -> int:
        return self._tokens_of_choice.get(choice, 0)

    @property
    def tokens(self) -> int:
        """Of all choices."""
        return sum(self._tokens_of_choice.values())

    def tokens_of_attempt(self, attempt_id: str) -> int:
        """Of the current one. Of one that another took the place of it is not known any more, and 0."""
        return self.tokens - self._tokens_before if attempt_id == self.attempt_id else 0

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
        if cursor.log_epoch != self.log_epoch:
            raise InvalidArgument(
                Reason.STREAM_RESET,
                "after: the output that this cursor points into was started over; stream again without a cursor",
            )
        if cursor.next_seq > len(self.entries):
            raise InvalidArgument(
                Reason.INVALID_CURSOR,
                f"after: '{cursor}' lies beyond the end of the output; use the cursor of an event of this task",
            )
        return cursor.next_seq
