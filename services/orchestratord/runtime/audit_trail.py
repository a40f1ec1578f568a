"""Who changed what: every command but the work itself, done or refused, goes into the audit log."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from llorch.clock import Clock
from llorch.errors import LlorchError
from llorch.rpc.call_context import call_or_none
from orchestratord.core import events
from orchestratord.core.effects import Effect
from orchestratord.core.events import Event
from orchestratord.runtime.keeper import Keeper
from orchestratord.store.interface import AuditEntry

_IS_WORK = (
    events.TaskSubmitted,
    events.TaskCancelled,
    events.ReaderAttached,
    events.ReaderLeft,
    events.NodeRegistered,
    events.NodeReported,
)
_SECRET_ENDINGS = ("key", "token", "hash", "secret")
_LONGEST_DETAILS = 4096


class AuditTrail:
    """An observer of the brain's owner."""

    def __init__(self, keeper: Keeper, clock: Clock) -> None:
        self._keeper = keeper
        self._clock = clock

    def observe(self, event: Event, _: Sequence[Effect], refusal: LlorchError | None, asked: bool) -> None:
        """What no call asked for is no change by somebody: the settings file, for one, is read at every start."""
        call = call_or_none()
        if call is None or not asked or isinstance(event, _IS_WORK):
            return
        entry = AuditEntry(
            at_ms=round(self._clock.wall().timestamp() * 1000),
            actor=call.identity,
            correlation_id=call.correlation_id,
            action=type(event).__name__,
            details=json.dumps(_plain(event), ensure_ascii=False)[:_LONGEST_DETAILS],
            outcome="done" if refusal is None else refusal.reason.value,
        )
        self._keeper.keep_audit(entry)


def _plain(value: Any) -> Any:
    """As JSON has it, without secrets, without what was not said, and without contents."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {
            name: _plain(item)
            for name, item in fields
            if item not in (None, "", (), {}) and not name.endswith(_SECRET_ENDINGS)
        }
    if isinstance(value, (tuple, list, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)):
        return value
    return str(value) if not isinstance(value, bytes) else f"{len(value)} bytes"
