"""What the orchestrator decided about a worker: everything that costs memory."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CacheType(StrEnum):
    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


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

    def to_json(self) -> dict[str, Any]:
        """These names stay: they are on the disk."""
        return {
            "worker_id": self.worker_id,
            "model": self.model,
            "source": self.source,
            "device_ids": list(self.device_ids),
            "slots": self.slots,
            "context_per_slot": self.context_per_slot,
            "cache_type_k": self.cache_type_k.value,
            "cache_type_v": self.cache_type_v.value,
            "tensor_split": list(self.tensor_split),
            "reservation_mib": list(self.reservation_mib),
        }

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
