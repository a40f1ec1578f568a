"""Places where a rule, or the request, does not want it."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return bool(query.rules.avoids)


def removes(query: Query, site: Site) -> bool:
    return query.rules.excluded_by_avoid(site.node, site.device_ids) is not None


def detail(query: Query, site: Site) -> str:
    rule = query.rules.excluded_by_avoid(site.node, site.device_ids)
    return rule.label(query.state.fleet) if rule is not None else ""


AVOIDED = Filter("avoided", removes, detail, matters)
