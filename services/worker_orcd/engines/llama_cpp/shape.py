"""What the engine is told to load, and the sizes that follow from it. Pure."""

from dataclasses import dataclass
from pathlib import Path

from worker_orcd.device import DeviceSet

BATCH_TOKENS = 512
"""Most tokens of one call of `llama_decode`. A larger batch aborts the process."""


@dataclass(frozen=True, slots=True)
class LlamaCppShape:
    """`model` is the name in the catalog. Contexts are in tokens, per slot."""

    model_path: Path
    model: str
    devices: DeviceSet
    slots: int
    context_per_slot: int
    cache_type_k: str
    cache_type_v: str
    threads: int
