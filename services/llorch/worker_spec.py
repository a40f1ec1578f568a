"""What the orchestrator decides about a worker: everything that costs memory. Pure."""

from dataclasses import dataclass

from llorch.cache_type import CacheType
from llorch.options.model import LoadOptions


@dataclass(frozen=True, slots=True)
class WorkerSpec(LoadOptions):
    """`reservation_mib` and `tensor_split` are in the order of `device_ids`; `tensor_split` may be empty.

    The fields, with those of `LoadOptions`, are those of the contract's WorkerSpec, and stand in the pool managers'
    records of their workers: a field that is added needs a default, and none changes its name.
    """

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
