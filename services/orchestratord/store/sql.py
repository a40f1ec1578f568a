"""The store in an SQL database. It speaks no dialect: SQLite and PostgreSQL take the same statements."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    RootTransaction,
    Row,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from llorch.errors import FailedPrecondition, LlorchError, Reason, ResourceExhausted
from llorch.identifiers import new_id
from llorch.logs import get_logger
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import TaskRequest, TaskState, Terminal
from orchestratord.store import codec, schema
from orchestratord.store.interface import AuditEntry, Ending, Incarnation, KeptTask
from orchestratord.store.kinds import BY_NAME, Kind, kind_of
from orchestratord.store.unreadable import unknown_kind, unreadable
from orchestratord.store.writer import TidyUp, Writer

_THE_CLUSTER = 1
_MIB = 1024 * 1024
_FULL_RETRY_MS = 5000

AUDIT_KEPT = 20_000
"""Entries, the newest. One has a few hundred bytes, and 4.5 KiB at most."""

# Made once: to build a statement takes as long as to carry it out.
_SAVE_TASK = text(
    "INSERT INTO tasks (task_id, request, accepted_at_ms, payload)"
    " VALUES (:task_id, :request, :accepted_at_ms, :payload)"
    " ON CONFLICT (task_id) DO UPDATE"
    " SET request = excluded.request, accepted_at_ms = excluded.accepted_at_ms, payload = excluded.payload"
)
_UPDATE_PROMISE, _UPDATE_ENDING = (
    update(schema.tasks)
    .where(schema.tasks.c.task_id == bindparam("its_id"))
    .values({name: bindparam(name) for name in names})
    for names in (("promise",), ("state", "terminal", "output", "ended_at_ms", "log_epoch", "payload"))
)
_DELETE_TASK = delete(schema.tasks).where(schema.tasks.c.task_id == bindparam("its_id"))
_UPDATE_RECORD = (
    update(schema.records)
    .where((schema.records.c.kind == bindparam("its_kind")) & (schema.records.c.record_key == bindparam("its_key")))
    .values(body=bindparam("body"))
)
_DELETE_RECORD, _DELETE_ENTRY = (
    delete(table).where((table.c.kind == bindparam("its_kind")) & (table.c.record_key == bindparam("its_key")))
    for table in (schema.records, schema.journal)
)
_EPOCH = select(schema.cluster.c.control_epoch).with_for_update(read=True)

_log = get_logger("orchestratord")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a kind of database knows of its size: how many bytes it holds, how many it may, and what is to be done after
    a group of writes. `close` ends what that has begun, once there are no writes any more.
    """

    used_bytes: Callable[[Connection], int]
    limit_bytes: int
    tidy_up: TidyUp
    close: Callable[[], None]


class SqlStore:
    """Over an engine whose database is up to date (`store.migrate`). Blocking work is the writer's thread's."""

    def __init__(self, engine: Engine, upkeep: Upkeep | None = None) -> None:
        self._upkeep = upkeep
        self._writer = Writer(engine, None if upkeep is None else upkeep.tidy_up)
        self._payload_bytes: dict[str, int] = {}
        """Of tasks that have not ended: to overwrite a payload takes as long as to write it."""
        self._fenced: RootTransaction | None = None
        """The transaction that was found to be this incarnation's; for the writer's thread."""
        self._used_bytes = 0
        """At the beginning of that transaction, with the tasks that it adds."""
        self._epochs: frozenset[int] = frozenset()
        """The store is this incarnation's as long as it has one of these; they are two while the epoch rises, and after
        a rise that failed until the next one.
        """

    async def begin_incarnation(self) -> Incarnation:
        incarnation = await self._writer.write(_begin_incarnation)
        self._epochs = frozenset({incarnation.control_epoch})
        return incarnation

    async def raise_epoch(self, above: int) -> Incarnation:
        before = self._epochs
        risen = max(above, *before) + 1
        # Writes that are asked for meanwhile come after it. Where the caller is cancelled, it is kept all the same.
        self._epochs = before | {risen}
        try:
            incarnation = await self._write(partial(_raise_epoch, risen))
        except LlorchError as error:
            if error.reason is not Reason.STORE_FAILED:  # else it may stand there all the same
                self._epochs = before
            raise
        self._epochs = frozenset({risen})
        return incarnation

    async def save_task(self, request: TaskRequest, accepted_at_ms: int) -> None:
        text_of_request = codec.dump(TaskRequest, replace(request, payload=b""))
        row = {
            "task_id": request.task_id,
            "accepted_at_ms": accepted_at_ms,
            "request": text_of_request,
            "payload": request.payload,
        }
        self._payload_bytes[request.task_id] = len(request.payload)
        size = len(request.payload) + len(text_of_request)

        def save(connection: Connection) -> None:
            """It may be there already, where an earlier try failed after it was written."""
            self._refuse_if_full(size)
            connection.execute(_SAVE_TASK, row)

        try:
            await self._write(save, size)
        except LlorchError:
            self._payload_bytes.pop(request.task_id, None)
            raise

    async def save_promise(self, task_id: str, promise: Promise | None) -> None:
        row = {"its_id": task_id, "promise": None if promise is None else codec.dump(Promise, promise)}
        await self._write(_executing(_UPDATE_PROMISE, row))

    async def save_ending(self, task_id: str, ending: Ending) -> None:
        row = {
            "its_id": task_id,
            "state": ending.state.value,
            "terminal": codec.dump(Terminal, ending.terminal),
            "output": ending.output,
            "ended_at_ms": ending.at_ms,
            "log_epoch": ending.log_epoch,
            "payload": None,
        }
        size = self._payload_bytes.pop(task_id, 0) + len(ending.output)
        await self._write(_executing(_UPDATE_ENDING, row), size)

    async def forget_task(self, task_id: str) -> None:
        size = self._payload_bytes.pop(task_id, 0)
        await self._write(_executing(_DELETE_TASK, {"its_id": task_id}), size)

    async def tasks(self) -> list[KeptTask]:
        found = await self._write(_read_tasks)
        self._payload_bytes |= {kept.request.task_id: len(kept.request.payload) for kept in found if not kept.ending}
        return found

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        note = None if audit is None else _Note(audit)

        def save(connection: Connection) -> None:
            """Records are frozen, so the writer's thread may read them."""
            appended: dict[Kind, dict[str, str | None]] = {}
            for change in changes:
                kind, key, body = kind_of(change.record), change.record.record_key, _body(change.after)
                if kind.keep_last is None:
                    _save(connection, kind, key, body)
                else:
                    appended.setdefault(kind, {})[key] = body
            for kind, bodies in appended.items():
                _append(connection, kind, bodies)
            if note is not None:
                note.write(connection)

        await self._write(save)

    async def records(self) -> list[Record]:
        return await self._write(_read_records)

    async def append_audit(self, entry: AuditEntry) -> None:
        await self._write(_Note(entry).write)

    async def audit(self, before_seq: int | None, limit: int) -> list[AuditEntry]:
        table = schema.audit
        query = select(table).order_by(table.c.seq.desc()).limit(limit)
        if before_seq is not None:
            query = query.where(table.c.seq < before_seq)
        return await self._write(lambda connection: [AuditEntry(**row) for row in connection.execute(query).mappings()])

    async def close(self) -> None:
        await self._writer.close()
        if self._upkeep is not None:
            await asyncio.to_thread(self._upkeep.close)

    def _refuse_if_full(self, more: int) -> None:
        """So that tasks leave room for their ends, and for everything else."""
        if self._upkeep is None:
            return
        used, limit = self._used_bytes, self._upkeep.limit_bytes
        if used + more > limit:
            raise ResourceExhausted(
                Reason.STORE_FULL,
                f"the orchestrator's database is full: it holds {used // _MIB} MiB, of {limit // _MIB} MiB that it "
                "may, and the task was not accepted; wait until tasks have ended, or raise database_mib in "
                "the section [orchestrator] of its settings file",
                retry_after_ms=_FULL_RETRY_MS,
            )
        self._used_bytes += more

    async def _write(self, operation: Callable[[Connection], Result], size: int = 0) -> Result:
        def fenced(connection: Connection) -> Result:
            """Asked once for all operations of a transaction: no other incarnation can begin before it ends."""
            transaction = connection.get_transaction()
            if transaction is None or transaction is not self._fenced:
                _refuse_if_superseded(connection, self._epochs)
                self._fenced = transaction
                self._used_bytes = 0 if self._upkeep is None else self._upkeep.used_bytes(connection)
            return operation(connection)

        return await self._writer.write(fenced, size)


class _Note:
    """One entry of the audit log. Written again, it stays one."""

    def __init__(self, entry: AuditEntry) -> None:
        self._row = {column.name: getattr(entry, column.name) for column in schema.audit.c if column.name != "seq"}
        self._seq: int | None = None

    def write(self, connection: Connection) -> None:
        if self._is_there(connection):
            return
        table = schema.audit
        connection.execute(insert(table).values(self._row))
        self._seq = connection.execute(select(func.max(table.c.seq))).scalar_one()
        connection.execute(delete(table).where(table.c.seq <= self._seq - AUDIT_KEPT))

    def _is_there(self, connection: Connection) -> bool:
        """Where an earlier try failed after it was written. Else another entry may have its number."""
        if self._seq is None:
            return False
        found = connection.execute(select(schema.audit).where(schema.audit.c.seq == self._seq)).mappings().one_or_none()
        return found is not None and dict(found) == {**self._row, "seq": self._seq}


def _executing(statement: Executable, row: Mapping[str, Any]) -> Callable[[Connection], None]:
    def execute(connection: Connection) -> None:
        connection.execute(statement, row)

    return execute


def _begin_incarnation(connection: Connection) -> Incarnation:
    row = connection.execute(select(schema.cluster).with_for_update()).one_or_none()
    if row is None:
        cluster_id, epoch = new_id("cluster"), 1
        values = {"id": _THE_CLUSTER, "cluster_id": cluster_id, "control_epoch": epoch}
        connection.execute(insert(schema.cluster).values(values))
    else:
        cluster_id, epoch = row.cluster_id, row.control_epoch + 1
        connection.execute(update(schema.cluster).values(control_epoch=epoch))
    return Incarnation(cluster_id, epoch)


def _raise_epoch(epoch: int, connection: Connection) -> Incarnation:
    connection.execute(update(schema.cluster).values(control_epoch=epoch))
    return Incarnation(connection.execute(select(schema.cluster.c.cluster_id)).scalar_one(), epoch)


def _refuse_if_superseded(connection: Connection, epochs: Collection[int]) -> None:
    """No other orchestrator can begin before the transaction ends: the row is locked until then."""
    present = connection.execute(_EPOCH).scalar()
    if present not in epochs:
        raise FailedPrecondition(
            Reason.STALE_EPOCH,
            f"another orchestrator has taken over this one's store (epoch {present} after {min(epochs)}); end this one",
        )


def _read_tasks(connection: Connection) -> list[KeptTask]:
    rows = connection.execute(select(schema.tasks).order_by(schema.tasks.c.seq))
    return [_task(row) for row in rows]


def _task(row: Row[Any]) -> KeptTask:
    """Raises if an accepted task can't be read: it is never left out silently."""
    try:
        request = replace(codec.load(TaskRequest, row.request), payload=row.payload or b"")
        promise = None if row.promise is None else codec.load(Promise, row.promise)
        return KeptTask(request, row.accepted_at_ms, None if row.state is None else _ending(row), promise)
    except ValueError as error:
        _log.error("task_unreadable", task_id=row.task_id, error=str(error))
        raise unreadable("task", row.task_id, str(error)) from None


def _ending(row: Row[Any]) -> Ending:
    return Ending(
        TaskState(row.state), codec.load(Terminal, row.terminal), row.output, row.ended_at_ms, row.log_epoch or 1
    )


def _body(record: Record | None) -> str | None:
    return None if record is None else codec.dump(type(record), record)


def _save(connection: Connection, kind: Kind, key: str, body: str | None) -> None:
    """Update, else insert: there is one writer, so no row appears in between."""
    place = {"its_kind": kind.name, "its_key": key}
    if body is None:
        connection.execute(_DELETE_RECORD, place)
    elif connection.execute(_UPDATE_RECORD, {**place, "body": body}).rowcount == 0:
        connection.execute(insert(schema.records), {"kind": kind.name, "record_key": key, "body": body})


def _append(connection: Connection, kind: Kind, bodies: Mapping[str, str | None]) -> None:
    """By key. The same key may come again and takes the place of the earlier one; the oldest go."""
    table = schema.journal
    of_kind = table.c.kind == kind.name
    connection.execute(_DELETE_ENTRY, [{"its_kind": kind.name, "its_key": key} for key in bodies])
    rows = [{"kind": kind.name, "record_key": key, "body": body} for key, body in bodies.items() if body is not None]
    if rows:
        connection.execute(insert(table), rows)
    newest = select(table.c.seq).where(of_kind).order_by(table.c.seq.desc()).offset(kind.keep_last).limit(1)
    last_to_go = connection.execute(newest).scalar()
    if last_to_go is not None:
        connection.execute(delete(table).where(of_kind & (table.c.seq <= last_to_go)))


def _read_records(connection: Connection) -> list[Record]:
    records, journal = schema.records, schema.journal
    rows = [
        *connection.execute(select(records).order_by(records.c.kind, records.c.record_key)),
        *connection.execute(select(journal).order_by(journal.c.kind, journal.c.seq)),
    ]
    found = (_record(row.kind, row.record_key, row.body) for row in rows)
    return [record for record in found if record is not None]


def _record(kind_name: str, key: str, body: str) -> Record | None:
    """None for a learnt record that can't be read: it is learnt again. Raises for a record that people have set."""
    kind = BY_NAME.get(kind_name)
    if kind is None:
        raise unknown_kind(kind_name, key)
    try:
        record: Record = codec.load(kind.type, body)
    except codec.Unreadable as error:
        _log.warning("record_unreadable", kind=kind.name, key=key, error=str(error))
        if kind.volatile:
            return None
        raise unreadable(kind.name, key, str(error)) from None
    return record
