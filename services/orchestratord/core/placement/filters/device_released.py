"""A device that its owner has taken back is not used until it is given back to us."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return len(query.state.released) > 0


def removes(query: Query, site: Site) -> bool:
    return any((site.node.node_id, device_id) in query.state.released for device_id in site.device_ids)


def detail(_: Query, site: Site) -> str:
    return f"{site.name} was released to its owner; `llorch gpu resume` gives it back"


DEVICE_RELEASED = Filter("device_released", removes, detail, matters)
