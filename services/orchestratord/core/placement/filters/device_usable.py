"""A device that does not answer can't be used."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def removes(_: Query, site: Site) -> bool:
    return not all(device.usable for device in site.devices)


def detail(_: Query, site: Site) -> str:
    lost = " and ".join(device.name for device in site.devices if not device.usable)
    return f"{lost} does not answer"


DEVICE_USABLE = Filter("device_usable", removes, detail)
