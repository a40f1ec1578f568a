"""A request may say which devices may be used at all."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return bool(query.rules.device_mask)


def removes(query: Query, site: Site) -> bool:
    return query.rules.excluded_by_mask(site.device_ids)


def detail(_: Query, site: Site) -> str:
    return f"the request's device_mask leaves {site.name} out"


DEVICE_MASK = Filter("device_mask", removes, detail, matters)
