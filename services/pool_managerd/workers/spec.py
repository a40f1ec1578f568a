"""What the orchestrator decided about a worker: everything that costs memory."""

from dataclasses import dataclass
from typing import Any

from llorch.cache_type import CacheType


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """`reservation_mib` and `tensor_split` are in the order of `device_ids`; `tensor_split` may be empty."""

    worker_id: str
    model: str
    source: str
    device_ids: tuple[str, ...]
    slots: int
    context_per_slot: int
    cache_type_k: CacheType = CacheType.F16
    cache_type_v: CacheType = CacheType.F16
    tensor_split: tuple[float, ...] = ()
    reservation_mib: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "WorkerSpec":
        return cls(
            worker_id=fields["worker_id"],
            model=fields["model"],
            source=fields["source"],
            device_ids=tuple(fields["device_ids"]),
            slots=fields["slots"],
            context_per_slot=fields["context_per_slot"],
            cache_type_k=CacheType(fields["cache_type_k"]),
            cache_type_v=CacheType(fields["cache_type_v"]),
            tensor_split=tuple(fields["tensor_split"]),
            reservation_mib=tuple(fields["reservation_mib"]),
        )
