"""What each mode of an assignment does to the places where a worker may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llorch.assignment_mode import Mode


@dataclass(frozen=True, slots=True)
class Effect:
    """A rule that `wants` its places is met by a worker at one of them; any other, by a worker that uses none of them.

    Where a rule that binds is not met, no worker may be, and `binds_as` names the filter that leaves the place out; of
    other rules, it counts how many are met. `wished` are the words for people before the places, where a request wishes
    them itself.
    """

    wants: bool
    binds_as: str = ""
    wished: str = ""

    @property
    def binds(self) -> bool:
        return self.binds_as != ""


EFFECTS: Mapping[Mode, Effect] = MappingProxyType(
    {
        Mode.PIN: Effect(wants=True, binds_as="pinned", wished="the request's pin to"),
        Mode.AVOID: Effect(wants=False, binds_as="avoided", wished="the request avoids"),
        Mode.PREFER: Effect(wants=True, wished="the request prefers"),
    }
)
"""In the order in which rules are told to people."""

BINDING = tuple(mode for mode, effect in EFFECTS.items() if effect.binds)
PREFERRING = tuple(mode for mode, effect in EFFECTS.items() if not effect.binds)
WANTING = tuple(mode for mode, effect in EFFECTS.items() if effect.wants)
