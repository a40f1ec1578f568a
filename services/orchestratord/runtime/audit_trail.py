"""Which caller changed what: every command but the work itself, done or refused, goes into the audit log."""

from collections.abc import Sequence

from llorch.clock import Clock
from llorch.errors import LlorchError
from llorch.redaction import redacted
from llorch.rpc.call_context import call_or_none
from orchestratord.core.effects import Effect, PersistChange
from orchestratord.core.events import Event
from orchestratord.runtime.audit_actions import BY_EVENT
from orchestratord.runtime.audit_details import details_of
from orchestratord.runtime.keeper import Keeper
from orchestratord.store.interface import AuditEntry


class AuditTrail:
    """An observer of the brain's owner."""

    def __init__(self, keeper: Keeper, clock: Clock) -> None:
        self._keeper = keeper
        self._clock = clock

    def observe(self, event: Event, effects: Sequence[Effect], refusal: LlorchError | None, asked: bool) -> None:
        """Notes what a caller asked for, and nothing else: the settings file, for example, is read at every start.

        What has to be stored is done when it is, so its note goes with it.
        """
        call = call_or_none()
        shape = BY_EVENT.get(type(event))
        if call is None or not asked or shape is None:
            return
        entry = AuditEntry(
            at_ms=round(self._clock.wall().timestamp() * 1000),
            actor=call.identity,
            correlation_id=call.correlation_id,
            action=shape.tag,
            details=redacted(details_of(event)),
            outcome="done" if refusal is None else refusal.reason.value,
        )
        self._keeper.keep_audit(entry, of_change=any(isinstance(effect, PersistChange) for effect in effects))
