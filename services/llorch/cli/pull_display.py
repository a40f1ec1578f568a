"""The progress of a pull: bars on a terminal, a line now and then elsewhere. All on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llorch.cli.output import gib, note

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from llama_orch.v2 import fleet_service_pb2
    from llama_orch.v2.pool_manager_service_pb2 import StageProgress

Show = Callable[["fleet_service_pb2.PullModelResponse"], None]

_LINE_EVERY_PERCENT = 10
_LONGEST_MACHINE = 16
_MIB_PER_GIB = 1024


@contextmanager
def display() -> Iterator[Show]:
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}", markup=False, justify="right"),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        yield _Bars(progress).show


def amount(progress: "StageProgress") -> str:
    """For example ` 45%  2.1 of 4.6 GiB  85 MiB/s  0:31`, as far as it is known."""
    if progress.complete:
        return f"{_size(progress.done_mib)}  done"
    speed = f"{progress.mib_per_second:.0f} MiB/s" if progress.mib_per_second >= 1 else ""
    if not progress.HasField("total_mib"):
        return "  ".join(filter(None, (_size(progress.done_mib), speed)))
    percent = f"{_percent(progress):3}%"
    done = f"{_number(progress.done_mib, progress.total_mib)} of {_size(progress.total_mib)}"
    return "  ".join(filter(None, (percent, done, speed, _time_left(progress))))


def _size(mib: int) -> str:
    return f"{_number(mib, mib)} {'GiB' if mib >= _MIB_PER_GIB else 'MiB'}"


def _number(mib: int, of_mib: int) -> str:
    """In the unit of the whole."""
    return gib(mib) if of_mib >= _MIB_PER_GIB else str(mib)


def _percent(progress: "StageProgress") -> int:
    return min(99, 100 * progress.done_mib // progress.total_mib) if progress.total_mib else 0


def _time_left(progress: "StageProgress") -> str:
    """While bytes come; what is left at the speed of the last seconds."""
    if progress.mib_per_second < 1:
        return ""
    minutes, seconds = divmod(round((progress.total_mib - progress.done_mib) / progress.mib_per_second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _Bars:
    """One per machine."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, answer: "fleet_service_pb2.PullModelResponse") -> None:
        bar = self._bars.get(answer.node_id)
        if bar is None:
            label = answer.node_id[:_LONGEST_MACHINE]
            bar = self._bars[answer.node_id] = self._progress.add_task(label, total=None, amount="")
        how = answer.progress
        total = how.total_mib if how.HasField("total_mib") else None
        self._progress.update(bar, total=total, completed=how.done_mib, amount=amount(how))


class _Lines:
    """A line for every tenth, and for the end."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def show(self, answer: "fleet_service_pb2.PullModelResponse") -> None:
        step = 100 if answer.progress.complete else _percent(answer.progress) // _LINE_EVERY_PERCENT
        if self._told.get(answer.node_id) != step:
            self._told[answer.node_id] = step
            note(f"{answer.node_id}: {amount(answer.progress).strip()}")
