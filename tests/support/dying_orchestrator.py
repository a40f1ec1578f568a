"""`python -m support.dying_orchestrator`: an orchestrator that kills itself at a named point of its work.

DIES_BY names a file. As long as that is not there, nothing happens; once it says `<name of a point> <n>`, the process
sends itself SIGKILL when it passes that point for the n-th time from then on. `DyingOrchestrator` runs it.
"""

import asyncio
import functools
import importlib
import inspect
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestratord import __main__ as orchestratord
from support.orchestrator_process import OrchestratorProcess

_SETTING = "DIES_BY"


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after a function of the daemon, `module:Class.name`; after a coroutine is when it has returned.

    `passages`: the n-th of them for every n up to this is surely passed. `at_start`: by an orchestrator that begins
    while tasks of the one before it run and wait.
    """

    function: str
    after: bool = False
    passages: int = 1
    at_start: bool = False


_API, _RUNTIME, _STORE = "orchestratord.api", "orchestratord.runtime", "orchestratord.store"
_TASK_SERVICE = f"{_API}.task_service:TaskService"
_ACCESS = f"{_API}.task_access:TaskAccess"
_EFFECTS = f"{_RUNTIME}.effect_runner:EffectRunner"
_LINK = f"{_RUNTIME}.worker_link:WorkerLink"
_STREAM = f"{_RUNTIME}.task_streams:TaskStream"
_STREAMS = f"{_RUNTIME}.task_streams:TaskStreams"
_SQL = f"{_STORE}.sql:SqlStore"

POINTS = {
    # A task comes in.
    "submission comes": Point(f"{_TASK_SERVICE}.SubmitTask", passages=6),
    "task admitted": Point(f"{_ACCESS}.submit", after=True, passages=8),
    "before the task is written": Point(f"{_SQL}.save_task", passages=6),
    "task written, but not told": Point(f"{_SQL}.save_task", after=True, passages=6),
    "acknowledged": Point(f"{_EFFECTS}.wait_kept", after=True, passages=6),
    "reader comes": Point(f"{_ACCESS}.attach", after=True, passages=6),
    # It runs.
    "promise written": Point(f"{_SQL}.save_promise", after=True),
    "before the run is sent": Point(f"{_LINK}._start_run", passages=8),
    "run answered": Point(f"{_LINK}._start_run", after=True, passages=8),
    "frame comes": Point(f"{_LINK}._take_in", passages=12),
    "first output shown": Point(f"{_STREAM}.append", after=True),
    "in the midst of output": Point(f"{_STREAM}.append", after=True, passages=400),
    "tick": Point(f"{_STREAMS}.make_room", passages=60),
    "readers woken": Point(f"{_STREAMS}.wake_all"),
    "what was learnt written": Point(f"{_RUNTIME}.keeper:Keeper.write_lagging", after=True),
    # It is cancelled.
    "cancel comes": Point(f"{_TASK_SERVICE}.CancelTask", passages=2),
    "before the stop is written": Point(f"{_RUNTIME}.keeper:Keeper.keep_stop", passages=2),
    "before the run is cancelled": Point(f"{_LINK}._cancel_run", passages=2),
    "cancel answered": Point(f"{_EFFECTS}.wait_end_kept", after=True, passages=2),
    # It ends.
    "end comes": Point(f"{_LINK}._keep_reading", passages=4),
    "end not asked to be written yet": Point(f"{_EFFECTS}._persist_terminal", passages=4),
    "before the end is written": Point(f"{_SQL}.save_ending", passages=4),
    "end written, but not told": Point(f"{_SQL}.save_ending", after=True, passages=4),
    "terminal shown": Point(f"{_STREAMS}.end", after=True, passages=4),
    "before the run is released": Point(f"{_LINK}._release_runs", passages=3),
    "run released": Point(f"{_LINK}._release_runs", after=True, passages=3),
    # The next one begins.
    "epoch begun": Point(f"{_SQL}.begin_incarnation", after=True, at_start=True),
    "tasks restored": Point(f"{_RUNTIME}.restart:restore_tasks", after=True, at_start=True),
    "node registers": Point(f"{_API}.node_link_service:NodeLinkService._registered", at_start=True),
    "before runs are listed": Point(f"{_LINK}._report_runs", passages=2, at_start=True),
    "runs listed": Point(f"{_LINK}._report_runs", after=True, passages=2, at_start=True),
    "run adopted": Point(f"{_EFFECTS}._adopt_run", after=True, passages=4, at_start=True),
    "in the midst of catching up": Point(f"{_STREAM}.append", after=True, passages=6, at_start=True),
    "task begins anew": Point(f"{_STREAM}.begin_anew", after=True, at_start=True),
}


class DyingOrchestrator(OrchestratorProcess):
    module: ClassVar[str] = "support.dying_orchestrator"

    def __post_init__(self) -> None:
        super().__post_init__()
        root = Path(__file__).parents[2]
        folders = (root / "tests", root / "services", root / "gen")
        self._order = self.folder / "dies-by"
        self._dies_at = ""
        self.environment = {
            **self.environment,
            _SETTING: str(self._order),
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        }

    def die_at(self, point: str, passage: int) -> None:
        """The one that runs, or the next one."""
        self._dies_at = f"'{point}', passage {passage}"
        written = self._order.with_suffix(".new")
        written.write_text(f"{passage} {point}")
        written.replace(self._order)  # at once, and whole

    async def wait_dead(self, within_s: float) -> None:
        """Returns when it has died where it was to. Others may be started then, which live on."""
        assert self.process is not None
        try:
            async with asyncio.timeout(within_s):
                status = await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"{self._dies_at} was not reached:\n{self.log()[-3000:]}") from None
        assert status == -signal.SIGKILL, f"it ended with {status}:\n{self.log()[-3000:]}"
        self._order.unlink()


def find(point: Point) -> tuple[Any, str, Callable[..., Any]]:
    """What has the function, its name there, and the function. Raises AttributeError where there is no such one."""
    module, _, path = point.function.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    return owner, name, getattr(owner, name)


def mortal(point: Point, function: Callable[..., Any], pass_by: Callable[[], None]) -> Callable[..., Any]:
    """The function, which calls `pass_by` at the point."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*arguments: Any, **named: Any) -> Any:
            if not point.after:
                pass_by()
            result = await function(*arguments, **named)
            if point.after:
                pass_by()
            return result

        return coroutine

    @functools.wraps(function)
    def plain(*arguments: Any, **named: Any) -> Any:
        if not point.after:
            pass_by()
        result = function(*arguments, **named)
        if point.after:
            pass_by()
        return result

    return plain


def _set_out(order: Path) -> None:
    passed: Counter[str] = Counter()

    def pass_by(here: str) -> None:
        try:
            passage, point = order.read_text().split(" ", 1)
        except FileNotFoundError:
            return
        if point == here:
            passed[here] += 1
            if passed[here] >= int(passage):
                os.kill(os.getpid(), signal.SIGKILL)

    for name, point in POINTS.items():
        owner, attribute, function = find(point)
        setattr(owner, attribute, mortal(point, function, functools.partial(pass_by, name)))


def main() -> None:
    _set_out(Path(os.environ[_SETTING]))
    orchestratord.main()


if __name__ == "__main__":
    main()
