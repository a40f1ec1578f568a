"""The options of a task besides its work: `TaskSpec`, `PlacementOverrides` and `SessionBudget` of the contract."""

from types import MappingProxyType

from llorch.assignment_mode import Mode
from llorch.options.option import CHARACTERS, Option, Range, Table

DEFAULT_PRIORITY = "interactive"

TASK: Table = MappingProxyType(
    {
        "session_id": Option(
            "Ties requests to where their KV cache is warm; each one brings its whole conversation all the same."
        ),
        "priority": Option('"interactive" or "batch".', default=f'the app\'s, else "{DEFAULT_PRIORITY}"'),
        "deadline_ms": Option(
            "Time from now in which the task has to be finished.", Range(1), default="no deadline", unit="ms"
        ),
        "placement": Option("Wishes about the place."),
        "deterministic": Option(
            "The same request with the same seed gives the same bytes on workers of one fingerprint. A task that has "
            "shown output goes on with an equal fingerprint, or fails.",
            default="false",
        ),
        "request_id": Option(
            "Chosen by the client: the same id with the same content is the same task, so that a retry is safe."
        ),
        "session_budget": Option(
            "What the session may use from its beginning on; replaces the budget that it had. Needs session_id."
        ),
    }
)


def places(meaning: str, least: int = 0) -> Option:
    return Option(meaning, Range(1, 512), unit=CHARACTERS, entries=Range(least, 64))


PLACEMENT: Table = MappingProxyType(
    {
        "pin": places('Only on these devices, nodes or pools, e.g. "garage/3090".'),
        "prefer": places(Mode.PREFER.meaning),
        "avoid": places(Mode.AVOID.meaning),
        "device_mask": places("Device ids that may be used at all; empty = all."),
        "fallback": Option(
            "Whether it may run elsewhere when the pinned place is lost.",
            default="what the assignment says, else false",
        ),
    }
)

WISHES = tuple(mode for mode in Mode if mode.word in PLACEMENT)
"""What a request may say about its own place as an assignment does."""

SESSION_BUDGET: Table = MappingProxyType(
    {
        "turns": Option("Requests.", Range(1), default="no limit"),
        "tokens": Option("Tokens, in and out.", Range(1), default="no limit"),
        "busy_ms": Option("Time that its requests run, together.", Range(1), default="no limit", unit="ms"),
    }
)
