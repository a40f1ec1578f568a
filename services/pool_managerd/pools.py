"""Which devices of this node are managed together. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llorch.errors import invalid_field
from pool_managerd.devices.device import Device
from pool_managerd.devices.naming import devices_named
from pool_managerd.node_state import Pool


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """`unknown`: names in the settings that fit no device, as "pool: name"."""

    pools: tuple[Pool, ...] = ()
    unknown: tuple[str, ...] = ()


def plan_pools(node_id: str, named: Mapping[str, Sequence[str]], devices: Sequence[Device]) -> PoolPlan:
    """Every device is in exactly one pool: those that the settings put in none are in the one named like the node.

    A pool whose devices are not there is there all the same, and empty: a card that was taken out must not stop
    its node. Raises `InvalidArgument` where two pools name the same device.
    """
    owner: dict[str, str] = {}
    unknown = []
    for pool, names in named.items():
        for name in names:
            found = devices_named(name, devices)
            if not found:
                unknown.append(f"{pool}: {name}")
            for device in found:
                if owner.setdefault(device.device_id, pool) != pool:
                    raise _taken_twice(device, owner[device.device_id], pool)
    ids = [device.device_id for device in devices]
    pools = [
        Pool(pool_id(node_id, pool), tuple(device_id for device_id in ids if owner.get(device_id) == pool))
        for pool in named
    ]
    rest = tuple(device_id for device_id in ids if device_id not in owner)
    if rest or not pools:
        pools.append(Pool(node_id, rest))
    return PoolPlan(tuple(pools), tuple(unknown))


def pool_id(node_id: str, name: str) -> str:
    """Unique in the cluster, because node ids are."""
    return f"{node_id}:{name}"


def _taken_twice(device: Device, first: str, second: str) -> Exception:
    return invalid_field(
        "pools",
        f'device {device.index}, {device.name} ({device.device_id}), is in "{first}" and in "{second}"; '
        "name it in one of them",
    )
