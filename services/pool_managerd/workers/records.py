"""The records on disk of the workers that this node has or had. One writer at a time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from llorch.auth import same_token
from llorch.errors import Reason, Unavailable
from llorch.logs import get_logger
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord

_log = get_logger(__name__)

_FORGET_EVERY = 100  # ends

MOST_USED_IDS = 10_000
"""Ids are random, and given once: only a start that is late, of a call that was given up seconds ago, brings one again.
In that time no node has had so many workers.
"""


class WorkerRecords:
    """Worker ids are single-use: one that was written stays used, as long as a start of it can be under way. Only
    records of living workers are kept here.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._disk = asyncio.Lock()
        self._living: dict[str, WorkerRecord] = {}
        self._used_ids: dict[str, None] = {}
        """Those that were used last come last."""
        self._ended = 0

    async def recall(self) -> None:
        """What earlier instances of this pool manager wrote; workers that had not ended count as living until `end`."""
        records = await asyncio.to_thread(self._journal.read_all)
        for record in records:
            self._use(record.worker_id)
        left = [record for record in records if record.stage not in (Stage.ENDED, Stage.REFUSED)]
        self._living.update((record.worker_id, record) for record in left)
        await self._forget_oldest()

    @property
    def living(self) -> list[WorkerRecord]:
        return list(self._living.values())

    def is_used(self, worker_id: str) -> bool:
        return worker_id in self._used_ids or worker_id in self._living

    def ports(self) -> set[int]:
        return {record.port for record in self._living.values()}

    def worker_by_ready_token(self, token: str) -> str | None:
        for record in self._living.values():
            if same_token(token, record.ready_token):
                return record.worker_id
        return None

    async def intend(self, record: WorkerRecord) -> None:
        """Returns once the disk has it. Raises `Unavailable` where it does not take it; then nothing happened."""
        self._living[record.worker_id] = record  # at once, so that no other worker is given its port
        try:
            await self._write(record)
        except BaseException:
            del self._living[record.worker_id]
            raise
        self._use(record.worker_id)

    async def refuse(self, worker_id: str) -> None:
        """A stop came before its start. Raises `Unavailable` where the disk does not take it."""
        if not self.is_used(worker_id):
            await self._write(WorkerRecord(worker_id, Stage.REFUSED))
            self._use(worker_id)
            await self._count_towards_forgetting()

    async def renew(self, worker_id: str, **facts: object) -> None:
        """For what has happened already; a failure to write it is logged."""
        before = self._living.get(worker_id)
        if before is None:  # it has ended meanwhile
            return
        record = replace(before, **facts)  # type: ignore[arg-type]  # checked by replace
        if record.process is not None and record.stage is Stage.INTENDED:
            record = replace(record, stage=Stage.STARTED)
        self._living[worker_id] = record
        if record != before:
            await self._write_latest(worker_id)

    async def end(self, worker_id: str) -> None:
        """Its process is no more: the id stays used, the secrets are forgotten."""
        record = self._living.pop(worker_id)
        async with self._disk:
            await self._try(record.as_ended())
        self._use(worker_id)  # its end is news of it
        await self._count_towards_forgetting()

    def _use(self, worker_id: str) -> None:
        self._used_ids.pop(worker_id, None)
        self._used_ids[worker_id] = None
        while len(self._used_ids) > MOST_USED_IDS:
            del self._used_ids[next(iter(self._used_ids))]

    async def _count_towards_forgetting(self) -> None:
        """Of what is on the disk and does not live."""
        self._ended += 1
        if self._ended % _FORGET_EVERY == 0:
            async with self._disk:
                await self._forget_oldest()

    async def _write(self, record: WorkerRecord) -> None:
        async with self._disk:
            with disk_errors_told(record.worker_id):
                await asyncio.to_thread(self._journal.write, record)

    async def _write_latest(self, worker_id: str) -> None:
        """Writes queue up; one that comes late must not bring back what another one has replaced."""
        async with self._disk:
            record = self._living.get(worker_id)
            if record is not None:
                await self._try(record)

    async def _forget_oldest(self) -> None:
        try:
            await asyncio.to_thread(self._journal.forget_oldest_ended)
        except OSError as error:
            _log.warning("old_worker_records_not_removed", error=error.strerror)

    async def _try(self, record: WorkerRecord) -> None:
        try:
            with disk_errors_told(record.worker_id):
                await asyncio.to_thread(self._journal.write, record)
        except Unavailable:
            return


@contextmanager
def disk_errors_told(worker_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.error("worker_record_not_written", worker_id=worker_id, error=error.strerror)
        raise Unavailable(
            Reason.STORE_FAILED, f"the node can't write to its data directory: {error.strerror}"
        ) from error
