"""A node with nothing but its link: it registers and reports one card, and takes no commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llorch.clock import SystemClock
from llorch.device_kind import DeviceKind
from llorch.identifiers import new_id
from pool_managerd.bell import Bell
from pool_managerd.control import ControlGuard
from pool_managerd.devices.device import Device
from pool_managerd.link.node_link import NodeIdentity, NodeLink
from pool_managerd.node_state import NodeState


@asynccontextmanager
async def linked(
    orchestrator: str, address: str, card: str, control: Path, node_id: str = "garage"
) -> AsyncIterator[None]:
    state = NodeState(devices=(Device(card, DeviceKind.SIMULATED, 0, card, 24576, 0, 0),))
    link = NodeLink(
        orchestrator=orchestrator,
        token=None,
        identity=NodeIdentity(node_id, new_id("pm"), "0", address),
        state=lambda: state,
        bell=Bell(),
        guard=ControlGuard(control),
        ends_known=lambda _: None,
        clock=SystemClock(),
    )
    holding = asyncio.create_task(link.run(), name=f"link of {card}")
    try:
        yield
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
