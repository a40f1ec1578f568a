"""Nothing new goes to a node that can't be reached, or that is being emptied."""

from orchestratord.core.facts.fleet import NodeState
from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def removes(_: Query, site: Site) -> bool:
    return site.node.state is not NodeState.READY


def detail(_: Query, site: Site) -> str:
    return f"{site.node.node_id} is {site.node.state.lower()}: nothing new is placed there"


NODE_READY = Filter("node_ready", removes, detail)
