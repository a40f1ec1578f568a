"""What this pool manager started, on disk for its next instance: one small JSON file per worker.

The intent is on disk before the process exists, the process's identity right after.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from llorch.half_written import remove_left
from llorch.logs import get_logger
from llorch.ports import split_address
from llorch.worker_spec import WorkerSpec
from pool_managerd.durable_file import BESIDE, write_durably
from pool_managerd.workers.identity import ProcessIdentity

_log = get_logger(__name__)

_KEEP_ENDED = 1000
_SPEC_FIELDS = get_type_hints(WorkerSpec)


class Stage(StrEnum):
    INTENDED = "intended"  # about to be executed, or executed without a note of its process id
    STARTED = "started"
    STOPPING = "stopping"  # told to end: the next instance of the pool manager goes on with it
    ENDED = "ended"
    REFUSED = "refused"  # a stop came before its start: a tombstone, so that a late start can't revive it


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What is needed to take the worker back. The tokens are secrets: the file is readable by its owner only.

    `address` is where the worker listens, from its command line or its report. `load_deadline_s` counts from its start.
    """

    worker_id: str
    stage: Stage
    spec: WorkerSpec | None = None
    access_token: str = ""
    ready_token: str = ""
    process: ProcessIdentity | None = None
    address: str = ""
    load_deadline_s: float = 300.0
    stall_s: float = 30.0
    start_time: datetime | None = None
    ready_time: datetime | None = None

    @property
    def port(self) -> int:
        return split_address(self.address)[1] if self.address else 0

    def as_ended(self) -> "WorkerRecord":
        """Keeps the id, so that it stays used, and forgets the secrets."""
        return WorkerRecord(self.worker_id, Stage.ENDED, self.spec)


class Journal:
    """Calls block until the disk has it; call them in a thread. One writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: WorkerRecord) -> None:
        write_durably(self._path(record.worker_id), _to_json(record))

    def read_all(self) -> list[WorkerRecord]:
        """Every record that can be read, the oldest first; logs one that can't."""
        records = []
        for path in self._files():
            try:
                records.append(_from_json(json.loads(path.read_text())))
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.error("worker_record_unreadable", file=path.name, error=str(error))
        return records

    def forget_oldest_ended(self) -> None:
        """Bounds the folder; ids are never used again by an orchestrator, only repeated soon after.

        What was being written when an earlier pool manager was killed goes as well.
        """
        remove_left(self._folder, f"*{BESIDE}")
        done = [record for record in self.read_all() if record.stage in (Stage.ENDED, Stage.REFUSED)]
        for record in done[:-_KEEP_ENDED]:
            self._path(record.worker_id).unlink(missing_ok=True)

    def _path(self, worker_id: str) -> Path:
        # Ids are [A-Za-z0-9._:-]; the suffix keeps "." and ".." from being folders.
        return self._folder / f"{worker_id}.json"

    def _files(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)


def _to_json(record: WorkerRecord) -> dict[str, Any]:
    """These names stay: the next release takes the workers back by them."""
    return {
        "worker_id": record.worker_id,
        "stage": record.stage.value,
        "spec": _from_spec(record.spec) if record.spec else None,
        "access_token": record.access_token,
        "ready_token": record.ready_token,
        "process": record.process.to_json() if record.process else None,
        "address": record.address,
        "load_deadline_s": record.load_deadline_s,
        "stall_s": record.stall_s,
        "start_time": record.start_time.isoformat() if record.start_time else None,
        "ready_time": record.ready_time.isoformat() if record.ready_time else None,
    }


def _from_json(fields: dict[str, Any]) -> WorkerRecord:
    spec, process = fields["spec"], fields["process"]
    return WorkerRecord(
        worker_id=fields["worker_id"],
        stage=Stage(fields["stage"]),
        spec=_to_spec(spec) if spec else None,
        access_token=fields["access_token"],
        ready_token=fields["ready_token"],
        process=ProcessIdentity.from_json(process) if process else None,
        address=fields["address"],
        load_deadline_s=fields["load_deadline_s"],
        stall_s=fields["stall_s"],
        start_time=_time(fields["start_time"]),
        ready_time=_time(fields["ready_time"]),
    )


def _from_spec(spec: WorkerSpec) -> dict[str, Any]:
    """Under the contract's names, which never change; `llorch.rpc.worker_spec` holds the fields to them."""
    return {name: _stored(getattr(spec, name)) for name in _SPEC_FIELDS}


def _to_spec(fields: dict[str, Any]) -> WorkerSpec:
    """What an older release did not know has its default; what only a newer one knows is left out."""
    known = {name: _value(kind, fields[name]) for name, kind in _SPEC_FIELDS.items() if name in fields}
    return WorkerSpec(**known)


def _value(kind: Any, stored: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(stored)
    return tuple(stored) if isinstance(stored, list) else stored


def _stored(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
