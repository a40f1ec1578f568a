"""`python -m support.store_writer FOLDER SEED TASKS`: a process that writes to a store, and ends without closing it.

What the store has acknowledged stands in the file `acknowledged` of the folder, one line after the other, as soon as
that is so: `TASK STAGE`, or `record VALUE`, or `noted VALUE`. Half-way the store is closed and opened again.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from llorch.finish_reason import FinishReason
from orchestratord.core.facts.model import ModelRecord
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.store.interface import AuditEntry, Ending
from orchestratord.store.sql import SqlStore
from orchestratord.store.sqlite import open_sqlite

ACKNOWLEDGED = "acknowledged"
DATA = "data"
SAVED, ENDED, FORGOTTEN = 1, 2, 3
AT_ONCE = 8
_EACH_FORGOTTEN = 3
"""One in so many of the tasks is forgotten."""

Acknowledge = Callable[[str, int], None]


def payload(task_id: str) -> bytes:
    chance = Random(task_id)  # noqa: S311  made up, not secret
    return task_id.encode() * chance.choice((1, 30, 300, 3000))


def ending(task_id: str) -> Ending:
    return Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), payload(task_id)[::-1], 1)


def request(task_id: str) -> TaskRequest:
    return TaskRequest(task_id, "coder", payload(task_id), "digest", 1, durable=True)


async def write(folder: Path, seed: int, tasks: int) -> None:
    log = os.open(folder / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def acknowledge(what: str, value: int) -> None:
        os.write(log, f"{what} {value}\n".encode())

    names = [f"task-{seed}-{number}" for number in range(tasks)]
    (folder / DATA).mkdir()
    for begin, end in ((0, tasks // 2), (tasks // 2, tasks)):
        store = open_sqlite(folder / DATA)
        await store.begin_incarnation()
        lines = [_tasks(store, names[begin + line : end : AT_ONCE], acknowledge) for line in range(AT_ONCE)]
        await asyncio.gather(*lines, _changes(store, range(begin, end), acknowledge))
        if begin == 0:
            await store.close()


async def _tasks(store: SqlStore, names: list[str], acknowledge: Acknowledge) -> None:
    for number, name in enumerate(names):
        await store.save_task(request(name), number)
        acknowledge(name, SAVED)
        await store.save_ending(name, ending(name))
        acknowledge(name, ENDED)
        if number % _EACH_FORGOTTEN == 0:
            await store.forget_task(name)
            acknowledge(name, FORGOTTEN)


async def _changes(store: SqlStore, values: range, acknowledge: Acknowledge) -> None:
    for value in values:
        change = RecordChange(None, ModelRecord("coder", at_ms=value))
        await store.save_records([change])
        acknowledge("record", value)
        await store.append_audit(AuditEntry(value, "localhost", "", "x", "{}", "done"))
        acknowledge("noted", value)


def main() -> None:
    folder, seed, tasks = sys.argv[1:]
    asyncio.run(write(Path(folder), int(seed), int(tasks)))
    os._exit(0)  # the power goes


if __name__ == "__main__":
    main()
