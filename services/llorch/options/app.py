"""The options of an app: `App` of the contract."""

from types import MappingProxyType

from llorch.options.option import MOST_UINT32, Option, Range, Table
from llorch.options.task import DEFAULT_PRIORITY

DEFAULT_WEIGHT = 1.0

APP: Table = MappingProxyType(
    {
        "models": Option("The app's own names for models: its name to the catalog's."),
        "priority": Option("Priority class of its tasks unless they say otherwise.", default=f'"{DEFAULT_PRIORITY}"'),
        "weight": Option("Share within its class relative to other apps.", Range(0.01, 100), default=DEFAULT_WEIGHT),
        "max_concurrent_tasks": Option(
            "Tasks that run at once, further ones wait in the queue; 0 = no limit.", Range(0, MOST_UINT32)
        ),
        "max_tokens_per_minute": Option(
            "Tokens per minute, in and out; while they are used up, further tasks are refused with QUOTA_EXCEEDED; "
            "0 = no limit.",
            Range(0, MOST_UINT32),
        ),
    }
)
