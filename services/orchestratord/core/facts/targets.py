"""Places as people name them: a node, a GPU of it, several of its GPUs together, or a pool.

garage             the node
garage/3090        the one GPU of garage whose name has the word or number 3090 in it
garage/0           the GPU that nvidia-smi shows as 0; a number of one or two digits is never a part of a name
garage/GPU-3f2a    the GPU whose UUID begins so
garage/3090+3060   these GPUs, together and in this order
fast               the pool that is called so

Kept by UUID, so that the rule follows a card that moves to another slot; shown by the card's name.
"""

import re
from dataclasses import dataclass

from llorch.errors import LlorchError, NotFound, Reason, invalid_field
from orchestratord.core.facts.fleet import Device, Fleet, Node, NodeState

TOGETHER = "+"

_TOO_LITTLE = re.compile(r"\d{1,2}|.", re.ASCII)
"""To be a part of a name: a number that would be an index, or a single sign."""
_WORDS = re.compile(r"\d+|[^\W\d_]+")
"""Of a card's name: "RTX A6000" is rtx, a and 6000, so that neither 600 nor 6 is a part of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Without devices it is the whole node, or with `pool_id` whatever belongs to the pool. Several devices are meant
    together, in this order.
    """

    node_id: str
    device_ids: tuple[str, ...] = ()
    pool_id: str = ""

    def covers(self, node: Node, device_ids: tuple[str, ...]) -> bool:
        """Whether a worker on these devices of the node is at this place."""
        if node.node_id != self.node_id:
            return False
        if self.pool_id:
            return self._devices_of_pool(node).issuperset(device_ids)
        return not self.device_ids or self.device_ids == device_ids or set(self.device_ids) == set(device_ids)

    def touches(self, node: Node, device_ids: tuple[str, ...]) -> bool:
        """Whether a worker on these devices of the node would use anything of this place."""
        if node.node_id != self.node_id:
            return False
        if self.pool_id:
            return not self._devices_of_pool(node).isdisjoint(device_ids)
        return not self.device_ids or not set(self.device_ids).isdisjoint(device_ids)

    def _devices_of_pool(self, node: Node) -> frozenset[str]:
        """As it is now: cards are put into pools by the node's settings."""
        pool = node.pools.get(self.pool_id)
        return frozenset(pool.device_ids) if pool is not None else frozenset()


def resolve(fleet: Fleet, text: str) -> Place:
    """The place that a text names. Raises NotFound with what there is, or InvalidArgument for what is ambiguous."""
    node_id, slash, devices = text.strip().partition("/")
    if not slash:
        return _node_or_pool(fleet, node_id)
    node = fleet.node(node_id)
    device_ids = tuple(_device(node, part).device_id for part in devices.split(TOGETHER))
    if len(set(device_ids)) < len(device_ids):
        raise invalid_field("target", f"'{text[:128]}' names the same GPU twice")
    return Place(node_id, device_ids)


def show(fleet: Fleet, place: Place) -> str:
    """The place for people: cards by name, with the index where a node has two of a name, by UUID if they are gone."""
    if place.pool_id:
        return place.pool_id
    if not place.device_ids:
        return place.node_id
    node = fleet.nodes.get(place.node_id)
    names = (_name(node, device_id) for device_id in place.device_ids)
    return f"{place.node_id}/{TOGETHER.join(names)}"


def why_missing(fleet: Fleet, target: str, place: Place | None) -> str:
    """Why the place can't be used, because it or a part of it is not there; empty if all of it is."""
    if place is None:
        return _why_unresolved(fleet, target)
    node = fleet.nodes.get(place.node_id)
    if node is None:
        renamed = next((one.node_id for one in fleet.nodes.values() if one.former == place.node_id), "")
        return f"node '{place.node_id}' is not there" + (f"; its host is called '{renamed}' now" if renamed else "")
    if node.state is NodeState.LOST:
        return f"node '{place.node_id}' is lost"
    if place.pool_id and place.pool_id not in node.pools:
        return f"node '{place.node_id}' has no pool '{place.pool_id}' any more"
    gone = [device_id for device_id in place.device_ids if device_id not in node.devices]
    return f"node '{place.node_id}' has no GPU {' and '.join(gone)} any more" if gone else ""


def devices_of(node: Node, place: Place) -> tuple[str, ...]:
    """The devices of the place that its node has now."""
    if place.pool_id:
        pool = node.pools.get(place.pool_id)
        held = pool.device_ids if pool is not None else ()
        return tuple(device_id for device_id in node.devices if device_id in held)
    if place.device_ids:
        return tuple(device_id for device_id in place.device_ids if device_id in node.devices)
    return tuple(node.devices)


def _why_unresolved(fleet: Fleet, target: str) -> str:
    """A node that is there may have no such card, or several of it."""
    node_id = target.strip().partition("/")[0]
    if node_id in fleet.nodes:
        try:
            resolve(fleet, target)
        except LlorchError as error:
            return error.message
    return f"no machine and no pool called '{node_id}' has ever connected"


def _node_or_pool(fleet: Fleet, name: str) -> Place:
    """A pool that is named like its node is all of that node's that is in no other pool; the name means the node."""
    holders = [node.node_id for node in fleet.nodes.values() if name in node.pools and node.node_id != name]
    if name in fleet.nodes and not holders:
        return Place(name)
    if name in fleet.nodes or len(holders) > 1:
        meanings = [*([f"node '{name}'"] if name in fleet.nodes else []), *(f"a pool of '{one}'" for one in holders)]
        raise invalid_field("target", f"'{name[:128]}' means {' and '.join(meanings)}; name GPUs, as node/card")
    if holders:
        return Place(holders[0], pool_id=name)
    nodes = ", ".join(sorted(fleet.nodes)) or "none"
    raise NotFound(
        Reason.NODE_NOT_FOUND,
        f"no node or pool is called '{name[:128]}'; the nodes are: {nodes}; a GPU is named as node/card, for "
        "example garage/3090",
    )


def _device(node: Node, text: str) -> Device:
    """By its id, its index, a beginning of its UUID, its name, or words of its name; the first that fits any counts."""
    named = text.strip()
    devices = sorted(node.devices.values(), key=lambda device: (device.index, device.device_id))
    for found in (
        [device for device in devices if device.device_id == named],
        [device for device in devices if str(device.index) == named],
        [device for device in devices if named and _begins_with(device, named)],
        [device for device in devices if device.name.casefold() == named.casefold()],
        [device for device in devices if not _TOO_LITTLE.fullmatch(named) and _has_words(device.name, named)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise invalid_field(
                "target", f"'{node.node_id}/{named[:128]}' means {len(found)} GPUs; name one of: {_offer(found)}"
            )
    raise NotFound(
        Reason.DEVICE_NOT_FOUND,
        f"node '{node.node_id}' has no GPU that '{named[:128]}' means; it has: {_offer(devices)}",
    )


def _begins_with(device: Device, prefix: str) -> bool:
    """With or without the driver's "GPU-" before it; short prefixes would be taken for names."""
    begins = (device.device_id, device.device_id.removeprefix("GPU-"))
    return len(prefix) >= 4 and any(begin.lower().startswith(prefix.lower()) for begin in begins)


def _has_words(name: str, wanted: str) -> bool:
    """Whether the words are there, one after the other and whole, however they are joined: "rtx-3090" is "RTX 3090"."""
    words, parts = _words(name), _words(wanted)
    starts = range(len(words) - len(parts) + 1)
    return bool(parts) and any(words[start : start + len(parts)] == parts for start in starts)


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.casefold())


def _offer(devices: list[Device]) -> str:
    return ", ".join(f"{device.index} ({device.name}, {device.device_id})" for device in devices) or "none"


def _name(node: Node | None, device_id: str) -> str:
    device = node.devices.get(device_id) if node is not None else None
    if node is None or device is None:
        return device_id
    twins = sum(other.name == device.name for other in node.devices.values())
    return device.name if twins == 1 else f"{device.index}"
