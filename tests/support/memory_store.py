"""A store that forgets everything at the end of the process: for tests."""

from collections.abc import Sequence
from dataclasses import replace

from llorch.identifiers import new_id
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record
from orchestratord.core.facts.task import TaskRequest
from orchestratord.store.interface import AuditEntry, Ending, Incarnation, KeptTask, RecordChange
from orchestratord.store.kinds import kind_of


class MemoryStore:
    def __init__(self) -> None:
        self._cluster_id = new_id("cluster")
        self._epoch = 0
        self._tasks: dict[str, KeptTask] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._audit: list[AuditEntry] = []

    async def begin_incarnation(self) -> Incarnation:
        self._epoch += 1
        return Incarnation(self._cluster_id, self._epoch)

    async def raise_epoch(self, above: int) -> Incarnation:
        self._epoch = max(above, self._epoch) + 1
        return Incarnation(self._cluster_id, self._epoch)

    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        self._tasks[request.task_id] = KeptTask(request, accepted_at_ms)

    async def save_promise(self, task_id: str, promise: Promise | None) -> None:
        if task_id in self._tasks:
            self._tasks[task_id] = replace(self._tasks[task_id], promise=promise)

    async def save_ending(self, task_id: str, ending: Ending) -> None:
        if task_id in self._tasks:
            self._tasks[task_id] = replace(self._tasks[task_id], ending=ending)

    async def forget_task(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)

    async def tasks(self) -> list[KeptTask]:
        return list(self._tasks.values())

    async def save_records(self, changes: Sequence[RecordChange]) -> None:
        for change in changes:
            kind = kind_of(change.record)
            key = (kind.name, change.record.record_key)
            if change.after is None:
                self._records.pop(key, None)
                continue
            self._records[key] = change.after
            if kind.keep_last is not None:
                self._forget_oldest(kind.name, kind.keep_last)

    async def records(self) -> list[Record]:
        ordered = sorted(
            self._records.items(), key=lambda item: (item[0][0], "" if kind_of(item[1]).keep_last else item[0][1])
        )
        return [record for _, record in ordered]

    async def append_audit(self, entry: AuditEntry) -> None:
        self._audit.append(replace(entry, seq=len(self._audit) + 1))

    async def audit(self, before_seq: int | None, limit: int) -> list[AuditEntry]:
        found = [entry for entry in reversed(self._audit) if before_seq is None or entry.seq < before_seq]
        return found[:limit]

    async def close(self) -> None:
        """Nothing is open."""

    def _forget_oldest(self, kind: str, keep_last: int) -> None:
        keys = [key for key in self._records if key[0] == kind]
        for key in keys[: max(0, len(keys) - keep_last)]:
            del self._records[key]
