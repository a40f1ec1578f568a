"""Runs whose sessions an earlier worker saved, until these are back in memory. Belongs to the event loop."""

import asyncio

from llorch.logs import get_logger
from worker_orcd.engines.llama_cpp.engine_thread import Command, EngineThread
from worker_orcd.engines.llama_cpp.sequence import WaitingChoice
from worker_orcd.engines.llama_cpp.session_file import SavedHead
from worker_orcd.engines.llama_cpp.session_files import SessionFiles

_log = get_logger("llama.cpp")


class ReturningSessions:
    """A run begins at once where the disk has nothing of its session, and else once that was read. Meanwhile its start
    has been answered: that call has a deadline, a large file takes time, and so does a step on a slow CPU.
    """

    def __init__(self, thread: EngineThread, files: SessionFiles | None) -> None:
        self._thread = thread
        self._files = files
        self._one_at_a_time = asyncio.Lock()
        """A state is as large as a slot."""
        self._reading: set[asyncio.Task[None]] = set()
        self._coming: dict[str, Command] = {}
        """What begins the runs that wait for their sessions."""

    async def begin(self, choice: WaitingChoice, begin: Command) -> None:
        """`choice` is the first one of the run that `begin` gives to the engine."""
        run, files = choice.run, self._files
        heads = await asyncio.to_thread(files.heads, run.session) if files is not None and run.session else []
        if files is None or not heads:
            self._thread.send(begin)
            return
        self._coming[run.attempt_id] = begin
        reading = asyncio.create_task(self._bring(files, heads, choice), name=f"session of {run.attempt_id}")
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        reading.add_done_callback(lambda _: self.begin_now(run.attempt_id))

    def begin_now(self, attempt_id: str) -> None:
        """The run waits no longer, if it does."""
        if (begin := self._coming.pop(attempt_id, None)) is not None:
            self._thread.send(begin)

    async def settle(self, within_s: float) -> None:
        """Waits for what is being read: the disk has it no more then, and the engine not yet."""
        if self._reading:
            await asyncio.wait(self._reading, timeout=within_s)

    async def _bring(self, files: SessionFiles, heads: list[SavedHead], choice: WaitingChoice) -> None:
        """From the disk, where an earlier worker saved more of the run's session than is here."""
        async with self._one_at_a_time:
            best = await self._thread.ask(lambda decode_loop: decode_loop.best_gain(heads, choice))
            saved = await asyncio.to_thread(files.take, best) if best is not None else None
            if saved is not None:
                await self._thread.ask(lambda decode_loop: decode_loop.bring_back(saved))
                _log.info("session_restored", tokens=len(saved.tokens), mib=saved.state.nbytes // 2**20)
