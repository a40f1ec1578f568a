"""What is kept of a node, so that after a restart of the orchestrator it is expected back as it was."""

from collections.abc import Mapping
from dataclasses import dataclass

from llorch.device_kind import DeviceKind


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """What a device is, without what it does now. Memory in MiB."""

    device_id: str
    kind: DeviceKind
    index: int
    name: str
    total_mib: int
    reserve_mib: int
    compute_capability: str
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownPool:
    pool_id: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownNode:
    """`offered` as in the node's reports, `host_id` as in its registration; `former` is the name of the host before."""

    node_id: str
    host_id: str
    address: str
    version: str
    labels: Mapping[str, str]
    devices: tuple[KnownDevice, ...]
    pools: tuple[KnownPool, ...]
    offered: Mapping[str, str]
    former: str

    @property
    def record_key(self) -> str:
        return self.node_id
