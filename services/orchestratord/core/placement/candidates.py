"""Places where a model could be loaded: devices of a node, alone or several together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

from llorch.device_kind import DeviceKind
from llorch.split_mode import SplitMode
from orchestratord.core.facts.fleet import Device, Node, Site
from orchestratord.core.placement.query import Query

ALL_SETS_UP_TO = 4
"""With at most so many devices of a node, every set is considered; with more, those next to each other in size."""


@dataclass(frozen=True, slots=True)
class Usable:
    """A node with those of its devices that the filters leave, each as a place of its own."""

    node: Node
    sites: Sequence[Site]

    @property
    def devices(self) -> list[Device]:
        """By index, as an engine would see them."""
        return sorted((site.devices[0] for site in self.sites), key=lambda device: (device.index, device.device_id))


def sizes_to_try(query: Query, usable: Sequence[Usable]) -> range:
    """How many devices at once, the least first: one before two, unless the owner wants the model spread."""
    most = max((len(here.sites) for here in usable), default=0)
    match query.model.split:
        case SplitMode.NONE:
            return range(1, 2)
        case SplitMode.LAYER:
            wanted = len(query.model.spec.split_shares)
            return range(wanted, wanted + 1) if wanted else range(2, most + 1)
        case _:
            return range(1, most + 1)


def sites_of_size(query: Query, here: Usable, size: int) -> Iterator[Site]:
    """Places of so many devices. Those that a rule names together come in the order in which it names them."""
    if size == 1:
        yield from here.sites
        return
    named = query.rules.sets()
    orders = [place.device_ids for place in named if place.node_id == here.node.node_id]
    for devices in _sets(query, here, size):
        yield _in_order(here.node, devices, orders)


def number_of_sets(query: Query, here: Usable, size: int) -> int:
    """How many `sites_of_size` has, without making them."""
    count = 0
    for alike in _alike([site.devices[0] for site in here.sites]):
        next_to_each_other = max(0, len(alike) - size + 1)
        count += comb(len(alike), size) if _takes_all_sets(query, alike) else next_to_each_other
    return count


def _sets(query: Query, here: Usable, size: int) -> Iterator[tuple[Device, ...]]:
    """An engine spreads a model over devices of one kind; and the CPU is one device."""
    for alike in _alike(here.devices):
        if _takes_all_sets(query, alike):
            yield from combinations(alike, size)
        else:
            yield from _next_to_each_other(query, here.node, alike, size)


def _alike(devices: Sequence[Device]) -> Iterator[list[Device]]:
    for kind in (DeviceKind.CUDA, DeviceKind.SIMULATED):
        yield [device for device in devices if device.kind is kind]


def _takes_all_sets(query: Query, devices: Sequence[Device]) -> bool:
    return len(devices) <= ALL_SETS_UP_TO or bool(query.rules.sets())


def _next_to_each_other(query: Query, node: Node, devices: Sequence[Device], size: int) -> Iterator[tuple[Device, ...]]:
    """Those with most room together, then those with a little less."""
    ledger = query.state.ledger
    by_room = sorted(devices, key=lambda device: (-ledger.available((node.node_id, device.device_id)), device.index))
    for begin in range(len(by_room) - size + 1):
        yield tuple(sorted(by_room[begin : begin + size], key=lambda device: (device.index, device.device_id)))


def _in_order(node: Node, devices: tuple[Device, ...], orders: Sequence[tuple[str, ...]]) -> Site:
    ids = tuple(device.device_id for device in devices)
    for order in orders:
        if set(order) == set(ids):
            by_id = {device.device_id: device for device in devices}
            return Site(node, tuple(by_id[device_id] for device_id in order), order)
    return Site(node, devices, ids)
