"""What was kept comes back: at the start of a new life, and where a change could not be kept."""

from collections.abc import Callable, Mapping
from typing import Any

from orchestratord.core.events import RecordNotKept, RecordsFound
from orchestratord.core.state import BrainState

Restore = Callable[[BrainState, Any, Any], None]
"""restore(state, kept, lost): `kept` is in force as it is, without checks or effects; without it, `lost` is gone."""

_RESTORE: Mapping[type, Restore] = {}


def records_found(state: BrainState, event: RecordsFound) -> None:
    for record in event.records:
        _RESTORE[type(record)](state, record, None)


def record_not_kept(state: BrainState, event: RecordNotKept) -> None:
    """Whoever asked for the change is told that it was refused, so it is undone."""
    changed = event.lost if event.lost is not None else event.kept
    if changed is not None:
        _RESTORE[type(changed)](state, event.kept, event.lost)
