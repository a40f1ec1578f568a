"""What an owner may say of a model: `ModelSpec` of the contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypedDict

from llorch.engines import EngineName
from llorch.options.option import Option, Range, Table, described, table_of

DEFAULT_CONTEXT = 32768
"""In tokens, unless the model was trained with less."""
DEFAULT_SLOTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Options that a worker is started with as they were said of its model; None or empty = not said.

    They are fields of the same name of the contract's `ModelSpec` and `WorkerSpec`, and of the worker's settings.
    """

    engine: str = described(
        "",
        Option(
            "Engine that runs it, by name.",
            default="the first that the device's host offers",
            words=tuple(EngineName),
        ),
    )


MODEL: Table = MappingProxyType(
    {
        "aliases": Option("Other names for it."),
        "context": Option(
            "Tokens that one request may use, prompt and answer.",
            Range(256, 4_194_304),
            default=f"{DEFAULT_CONTEXT}, or what the model was trained with if that is less",
            unit="tokens",
        ),
        "slots": Option("Requests at once.", Range(1, 256), default=DEFAULT_SLOTS),
        "cache_type": Option("Type of the KV cache.", default="f16"),
        "split": Option("Whether it is spread over devices.", default="auto"),
        "split_shares": Option(
            "Shares per device where it is spread, such as 24 and 12; not all of them are 0.",
            Range(0),
            default="by free memory",
            entries=Range(0, 16),
        ),
        "idle_unload_ms": Option(
            "Unload after this time without use, in ms.", default="stay until the space is needed"
        ),
        "vram_claim_mib": Option("Memory it takes.", Range(1), default="the estimate", unit="MiB"),
        **table_of(LoadOptions),
    }
)


class ModelSettings(TypedDict, total=False):
    """The same as arguments of a call. `cache_type` and `split` are values of the contract's enums, or their names."""

    aliases: str | Sequence[str] | None
    context: int | None
    slots: int | None
    cache_type: int | str | None
    split: int | str | None
    split_shares: Sequence[float] | None
    idle_unload_ms: int | None
    vram_claim_mib: int | None
    engine: str | None
