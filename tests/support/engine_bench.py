"""An engine under test, with its steps sorted by run."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llorch.finish_reason import FinishReason
from worker_orcd.engines.protocol import Engine, EngineRun
from worker_orcd.log_entry import LogEntry, RunEnd
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

WAIT_S = 60.0


@dataclass
class Seen:
    """What came of one run."""

    starts: int = 0
    prompt: tuple[int, int] | None = None
    """Its tokens, and those that need not be evaluated, as they were told at the start."""
    log: list[LogEntry] = field(default_factory=list)
    end: RunEnd | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        return "".join(entry.text for entry in self.log)

    @property
    def token_ids(self) -> list[int]:
        return [token_id for entry in self.log for token_id in entry.token_ids]

    def choice_ids(self, choice: int) -> list[int]:
        return [token_id for entry in self.log if entry.choice == choice for token_id in entry.token_ids]

    @property
    def finish(self) -> FinishReason:
        assert self.end is not None
        return self.end.choices[0].finish_reason


class Bench:
    """An engine with its steps sorted by run; checks what must hold of every step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._seen: dict[str, Seen] = {}
        self._closed = False
        engine.deliver_to(self._on_steps)

    async def submit(self, attempt_id: str, spec: RunSpec, prefix: Sequence[LogEntry] = (), session: str = "") -> Seen:
        self._seen[attempt_id] = Seen()
        await self.engine.submit(EngineRun(attempt_id, spec, tuple(prefix), session=session))
        return self._seen[attempt_id]

    async def run(self, attempt_id: str, spec: RunSpec, prefix: Sequence[LogEntry] = (), session: str = "") -> Seen:
        return await ended(await self.submit(attempt_id, spec, prefix, session))

    async def close(self) -> None:
        """May be called again; an engine's own may not."""
        if not self._closed:
            self._closed = True
            await self.engine.close()

    def _on_steps(self, steps: Sequence[TokenStep]) -> None:
        assert len({step.attempt_id for step in steps}) == len(steps), "one step of a run at a time"
        for step in steps:
            seen = self._seen[step.attempt_id]
            assert seen.end is None, "nothing may follow an end"
            seen.starts += step.started
            if step.started:
                seen.prompt = step.tokens_in, step.cached_tokens
            seen.log += step.entries
            seen.end = step.end
            if step.end is not None and seen.prompt is not None:
                assert (step.end.tokens_in, step.end.cached_tokens) == seen.prompt, "what was told at the start holds"
            seen.changed.set()


async def until(seen: Seen, condition: Callable[[Seen], bool]) -> Seen:
    async with asyncio.timeout(WAIT_S):
        while not condition(seen):
            seen.changed.clear()
            await seen.changed.wait()
    return seen


async def ended(seen: Seen) -> Seen:
    return await until(seen, lambda seen: seen.end is not None)
