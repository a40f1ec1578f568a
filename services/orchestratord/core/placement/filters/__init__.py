"""Filters, one per file, in the order in which they are asked: what is told to people is the first that applies."""

from orchestratord.core.placement.filters.avoided import AVOIDED
from orchestratord.core.placement.filters.compute_capability import COMPUTE_CAPABILITY
from orchestratord.core.placement.filters.context import CONTEXT
from orchestratord.core.placement.filters.device_mask import DEVICE_MASK
from orchestratord.core.placement.filters.device_released import DEVICE_RELEASED
from orchestratord.core.placement.filters.device_usable import DEVICE_USABLE
from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.filters.load_failed import LOAD_FAILED
from orchestratord.core.placement.filters.node_ready import NODE_READY
from orchestratord.core.placement.filters.pinned import PINNED
from orchestratord.core.placement.filters.pool_draining import POOL_DRAINING

OF_NODES: tuple[Filter, ...] = (NODE_READY, LOAD_FAILED)
"""Asked once per node, with a site without devices."""

OF_DEVICES: tuple[Filter, ...] = (
    DEVICE_USABLE,
    DEVICE_RELEASED,
    POOL_DRAINING,
    COMPUTE_CAPABILITY,
    DEVICE_MASK,
    AVOIDED,
)
"""Asked per device; a set of devices is made of those that they leave."""

OF_SETS: tuple[Filter, ...] = (PINNED, CONTEXT)
"""Asked per set of devices, be it one device or several."""

OF_RULES: tuple[Filter, ...] = (DEVICE_MASK, AVOIDED, PINNED)
"""Of all these, those that follow what people say."""

OF_WORKERS: tuple[Filter, ...] = (NODE_READY, DEVICE_MASK, AVOIDED, PINNED, CONTEXT)
"""Asked per worker that is there already."""
