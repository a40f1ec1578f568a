"""A device that does not answer can't be used."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def removes(_: Query, site: Site) -> bool:
    return not site.devices[0].usable


def detail(_: Query, site: Site) -> str:
    return f"{site.name} does not answer"


DEVICE_USABLE = Filter("device_usable", removes, detail)
