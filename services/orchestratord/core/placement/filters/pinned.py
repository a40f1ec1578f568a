"""Where a rule, or the request, wants it somewhere else and nowhere but there."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return bool(query.rules.pins)


def removes(query: Query, site: Site) -> bool:
    return query.rules.excluded_by_pin(site.node, site.device_ids) is not None


def detail(query: Query, site: Site) -> str:
    rule = query.rules.excluded_by_pin(site.node, site.device_ids)
    return rule.label(query.state.fleet) if rule is not None else ""


PINNED = Filter("pinned", removes, detail, matters)
