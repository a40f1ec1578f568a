"""What an orchestrator restores at its start."""

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime

from llorch.clock import Clock
from orchestratord.convert import task_output, tasks
from orchestratord.core import events
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.store.interface import Store


async def restore_records(store: Store, owner: BrainOwner, clock: Clock) -> None:
    """Before anything else: models, apps and assignments have to be there when something names them."""
    owner.post(events.RecordsFound(tuple(await store.records()), _now_ms(clock)))


async def restore_tasks(store: Store, owner: BrainOwner, streams: TaskStreams, clock: Clock) -> int:
    """Accepted tasks go on waiting, and finished ones can be read for the rest of their time. Returns how many wait.

    Output of a task that was not finished is not kept; it starts over in a log with another epoch, so that a reader who
    has read some of it is told to begin anew. One who has read none goes on. The epoch is the time, which no earlier
    start had; a number in the database would come again where an older copy of it is put back.
    """
    log_epoch = _now_ms(clock)
    kept_tasks = deque(await store.tasks())
    waiting = 0
    while kept_tasks:  # each is let go once its stream has its output
        kept = kept_tasks.popleft()
        admitted_at = datetime.fromtimestamp(kept.accepted_at_ms / 1000, UTC)
        age_s = _ago_s(kept.accepted_at_ms, clock)
        if kept.ending is None:
            waiting += 1
            streams.restore(kept.request, admitted_at, log_epoch, ()).lose_sight()
            request = replace(kept.request, deterministic=tasks.is_deterministic(kept.request))
            owner.post(events.TaskRestored(request, age_s, promise=kept.promise))
        else:
            entries = task_output.from_bytes(kept.ending.output)
            request = kept.request.without_work()
            streams.restore(request, admitted_at, kept.ending.log_epoch, entries)
            streams.end(request, kept.ending.terminal)
            ended = (kept.ending.state, kept.ending.terminal, _ago_s(kept.ending.at_ms, clock))
            owner.post(events.TaskRestored(request, age_s, ended))
    return waiting


def _now_ms(clock: Clock) -> int:
    return round(clock.wall().timestamp() * 1000)


def _ago_s(at_ms: int, clock: Clock) -> float:
    """Never negative, though the machine's clock may have been set back."""
    return max(0.0, clock.wall().timestamp() - at_ms / 1000)
