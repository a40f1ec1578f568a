"""A node where loading the model failed is left out until somebody asks for the model anew."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return bool(query.request.excluded_nodes)


def removes(query: Query, site: Site) -> bool:
    return site.node.node_id in query.request.excluded_nodes


def detail(query: Query, site: Site) -> str:
    failure = query.state.refusals.get(query.model.name, {}).get(site.node.node_id)
    return f"loading it there failed{f': {failure.message}' if failure else ''}"


LOAD_FAILED = Filter("load_failed", removes, detail, matters)
