"""What a worker keeps of a task, for the next orchestrator: written as the database's records are.

One of a later release does not say how it is read: that run is let go, as one without a record.
"""

import json
from dataclasses import replace
from typing import Any

from orchestratord.core.facts.found_run import TaskRecord
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.task import TaskRequest
from orchestratord.store import codec, names


def dump(record: TaskRecord) -> bytes:
    """Without the payload, which the run has as its work."""
    return json.dumps(
        {
            "format": names.FORMAT,
            "request": codec.dump(TaskRequest, replace(record.request, payload=b"")),
            "accepted_at_ms": record.accepted_at_ms,
            "promise": None if record.promise is None else codec.dump(Promise, record.promise),
        }
    ).encode()


def load(kept: bytes, payload: bytes) -> TaskRecord | None:
    """None for what this release can't read."""
    try:
        stored = json.loads(kept)
        present = stored["format"]
        if not isinstance(present, int) or not 0 <= present <= names.FORMAT:
            return None
        request = replace(_read(TaskRequest, stored["request"], present), payload=payload)
        promise = None if stored["promise"] is None else _read(Promise, stored["promise"], present)
        return TaskRecord(request, int(stored["accepted_at_ms"]), promise)
    except (codec.Unreadable, AttributeError, KeyError, TypeError, ValueError):
        return None


def _read(kind: Any, text: str, present: int) -> Any:
    return codec.load(kind, text if present == names.FORMAT else codec.upgrade(kind, text, present))
