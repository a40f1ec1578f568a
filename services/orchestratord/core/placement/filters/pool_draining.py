"""Nothing is placed in a pool that is being emptied, or was, until it is reloaded."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return len(query.state.drains) > 0


def removes(query: Query, site: Site) -> bool:
    return any(query.state.drains.covers((site.node.node_id, device_id)) for device_id in site.device_ids)


def detail(query: Query, site: Site) -> str:
    drains = query.state.drains.on_node(site.node.node_id)
    pools = [drain.pool_id for drain in drains if set(drain.device_ids) & set(site.device_ids)]
    return f"pool {' and '.join(pools)} is drained; `llorch pool reload {pools[0]}` puts it to work again"


POOL_DRAINING = Filter("pool_draining", removes, detail, matters)
