"""What one step of an engine brought for one run."""

from typing import NamedTuple

from worker_orcd.log_entry import LogEntry, RunEnd


class TokenStep(NamedTuple):
    """`entries` follow the run's log without a gap; after a step with an `end` nothing more comes for this
    run.

    `started` is set once, when the run got its slot, with what is known of the prompt by then: its tokens, and how many
    of them need not be evaluated.
    """

    attempt_id: str
    started: bool = False
    entries: tuple[LogEntry, ...] = ()
    end: RunEnd | None = None
    tokens_in: int = 0
    cached_tokens: int = 0
