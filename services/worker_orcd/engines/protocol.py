"""The one interface of all engines.

An engine starts its work in `load`, hands over what its steps brought through one callback, and decides
nothing but the order of its own batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llorch.finish_reason import FinishReason
from worker_orcd.engine_info import EngineInfo, EngineStats
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_reader import TokenReader
from worker_orcd.token_step import TokenStep

StepCallback = Callable[[Sequence[TokenStep]], None]
"""Called on the event loop's thread, once per step, with what the step brought for all runs together."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """A run as it is submitted. `prefix` are the log entries of earlier attempts, which the run continues. `session` is
    as in StartRun's `saved_session`; empty for none.

    A `rehearsal` is the worker's self-test: a simulated engine takes no time for it and does not misbehave.
    """

    attempt_id: str
    spec: RunSpec
    prefix: tuple[LogEntry, ...] = ()
    rehearsal: bool = False
    session: str = ""


@dataclass(frozen=True, slots=True)
class Embedded:
    """One vector per text. `tokens_in` counts the tokens of all texts."""

    vectors: list[list[float]]
    tokens_in: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """One score per document, the higher the better it answers the query. `tokens_in` counts the query with each."""

    scores: list[float]
    tokens_in: int


class Engine(Protocol):
    async def load(self) -> None:
        """Loads the model. Raises `LlorchError` with a message for the operator when it can't."""
        ...

    def load_progress(self) -> float | None:
        """How far `load` is, 0 to 1; None where it can't tell."""
        ...

    def info(self) -> EngineInfo:
        """Its properties and capabilities. Known after `load`."""
        ...

    def deliver_to(self, on_steps: StepCallback) -> None:
        """Where steps go. Called once, before the first `submit`."""
        ...

    async def watch(self) -> None:
        """Never returns; raises `LlorchError` when the engine can't go on. Runs for as long as the worker
        does.
        """
        ...

    async def submit(self, run: EngineRun) -> None:
        """Takes a run that generates; its steps follow until one with an end. Raises `LlorchError` if it is refused.

        The caller submits no more than `max_admitted` unfinished runs, and no attempt id twice.
        """
        ...

    def cancel(self, attempt_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ends a run within a step, in mid-prefill within a chunk; its end arrives as a step. Unknown ids
        pass.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector per text, of length 1. Asked only of an engine that declares it."""
        ...

    async def rank(self, query: str, documents: Sequence[str]) -> Ranked:
        """A score per document. Asked only of an engine that declares it."""
        ...

    def token_reader(self) -> TokenReader:
        """Answers about the tokens of the model, until `close`. Known after `load`."""
        ...

    def stats(self) -> EngineStats:
        """Counters; cheap, from the event loop at any time."""
        ...

    async def save_sessions(self, keep_s: Mapping[str, float], within_s: float) -> None:
        """Saves the idle sequences of these sessions for the next worker, each for so long, where that is worth it.
        Called before `close`, once all runs have ended. An engine that has nothing to save returns at once.
        """
        ...

    async def close(self) -> None:
        """Ends every run without a further step and frees what `load` took. Called once."""
        ...
