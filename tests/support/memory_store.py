"""A store that forgets everything at the end of the process: for tests."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from llorch.errors import Reason, Unavailable
from llorch.identifiers import new_id
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import TaskRequest
from orchestratord.store.interface import AuditEntry, Ending, Incarnation, KeptTask
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
            kept = self._tasks[task_id]
            self._tasks[task_id] = replace(kept, request=replace(kept.request, payload=b""), ending=ending)

    async def forget_task(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)

    async def tasks(self) -> list[KeptTask]:
        return list(self._tasks.values())

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        for change in changes:
            kind = kind_of(change.record)
            key = (kind.name, change.record.record_key)
            if change.after is None:
                self._records.pop(key, None)
                continue
            self._records[key] = change.after
            if kind.keep_last is not None:
                self._forget_oldest(kind.name, kind.keep_last)
        if audit is not None:
            await self.append_audit(audit)

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


class FullDisk(MemoryStore):
    """Refuses the next `failures` writes of tasks and records."""

    def __init__(self, failures: int = 1) -> None:
        super().__init__()
        self.failures = failures

    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        await self._fail()
        await super().save_task(request, accepted_at_ms)

    async def save_ending(self, task_id: str, ending: Ending) -> None:
        await self._fail()
        await super().save_ending(task_id, ending)

    async def save_promise(self, task_id: str, promise: Promise | None) -> None:
        await self._fail()
        await super().save_promise(task_id, promise)

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        await self._fail()
        await super().save_records(changes, audit)

    async def _fail(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise Unavailable(Reason.STORE_FAILED, "the disk is full")
