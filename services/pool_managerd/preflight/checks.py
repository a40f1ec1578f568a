"""All checks, in the order in which an operator looks at them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from llorch.device_kind import DeviceKind
from pool_managerd.devices.device import Device
from pool_managerd.preflight.devices import find_devices
from pool_managerd.preflight.engine import find_engine, needs_engine
from pool_managerd.preflight.finding import Finding, Level
from pool_managerd.preflight.limits import find_limits
from pool_managerd.preflight.ports import find_port, find_worker_ports
from pool_managerd.preflight.storage import find_data_dir, find_disk, find_models_dir, models_dir_problem
from pool_managerd.settings import PoolManagerSettings


async def look_at_everything(settings: PoolManagerSettings, nvml_binding: Any = None) -> list[Finding]:
    """What `llorch doctor` shows. Nothing else runs in the loop meanwhile: drivers and disks are waited for."""
    about_devices, devices = find_devices(settings, nvml_binding)
    return [
        *about_devices,
        *([await find_engine(devices)] if needs_engine(settings) else []),
        find_data_dir(settings),
        find_disk(settings),
        await find_models_dir(settings),
        find_port(settings),
        find_worker_ports(settings),
        *find_limits(),
    ]


async def look_beside_the_start(settings: PoolManagerSettings, devices: Sequence[Device]) -> list[Finding]:
    """The problems that a start does not find by itself.

    Devices, data directory and port are not asked for again: without them there was no start. The engine is asked
    where there is a GPU: it is the one thing whose failure would show only with the first task.
    """
    found = await asyncio.to_thread(_of_the_system, settings)
    if any(device.kind is DeviceKind.CUDA for device in devices):
        found.insert(0, await find_engine(devices))
    return [finding for finding in found if finding.level is not Level.OK]


def _of_the_system(settings: PoolManagerSettings) -> list[Finding]:
    problem = models_dir_problem(settings)
    return [find_disk(settings), find_worker_ports(settings), *find_limits(), *([problem] if problem else [])]
