"""What an owner may say of a model: `ModelSpec` of the contract."""

from types import MappingProxyType

from llorch.options.option import Option, Range, Table

DEFAULT_CONTEXT = 32768
"""In tokens, unless the model was trained with less."""
DEFAULT_SLOTS = 4

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
    }
)
