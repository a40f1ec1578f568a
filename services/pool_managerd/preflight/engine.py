"""Whether there is an engine that can compute on the devices of this machine."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pool_managerd.devices.device import Device, DeviceKind
from pool_managerd.devices.nvml_remedies import LOOK_AT_THE_CARD
from pool_managerd.preflight.finding import Finding, failed, ok, warning
from pool_managerd.settings import PoolManagerSettings

# -P: the folder that somebody stands in must not shadow a package.
ENGINE_CHECK = (sys.executable, "-P", "-m", "worker_orcd.engine_check")
_ANSWERS_WITHIN_S = 70.0
_INSTALL = "pip install 'llama-orch[llamacpp]'"
_BUILD_FOR_GPU = (
    "install it again with the CUDA toolkit (nvcc) on the PATH: "
    'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python=={version}'
)


def needs_engine(settings: PoolManagerSettings) -> bool:
    """Made-up answers behind imaginary cards need none."""
    return not settings.simulate_gpu or settings.simulated_engine != "sim"


async def find_engine(devices: Sequence[Device], command: Sequence[str] = ENGINE_CHECK) -> Finding:
    """Asks the engine in a process of its own, as a worker would load it; takes seconds."""
    try:
        code, out, err = await _ask(command, _as_for_a_worker(os.environ, devices))
        if code == 0:
            return judge(json.loads(out.splitlines()[-1]), devices)
    except TimeoutError:
        return failed("engine", "the driver or the engine hangs when it is loaded", LOOK_AT_THE_CARD)
    except (OSError, ValueError, LookupError) as error:
        return failed("engine", f"it can't be asked: {error}", _INSTALL)
    return failed("engine", _how_it_died(code, err), f"{_INSTALL} --force-reinstall")


def judge(answer: Mapping[str, Any], devices: Sequence[Device]) -> Finding:
    """`answer` is what `worker_orcd.engine_check` prints."""
    if "missing" in answer:
        return failed("engine", str(answer["missing"]).partition(";")[0], _INSTALL)
    name = f"llama-cpp-python {answer['version']}"
    gpus = [device for device in devices if device.kind is DeviceKind.CUDA]
    if not gpus:
        return ok("engine", f"{name}, built {'for GPUs' if answer['gpu_offload'] else 'for the CPU alone'}")
    if not answer["gpu_offload"]:
        return _no_use_of_gpus(devices)(
            "engine", f"{name} was built without GPU support", _BUILD_FOR_GPU.format(version=answer["version"])
        )
    seen = len(answer["gpus"])
    if seen < len(gpus):
        driver = gpus[0].driver_version
        return _no_use_of_gpus(devices)(
            "engine",
            f"{name} sees {seen} of {len(gpus)} GPUs",
            f"its CUDA is newer than driver {driver} knows, or it was built for other cards: upgrade the driver, or "
            + _BUILD_FOR_GPU.format(version=answer["version"]),
        )
    return ok("engine", f"{name} with GPU support, sees {seen} {'GPU' if seen == 1 else 'GPUs'}")


def _no_use_of_gpus(devices: Sequence[Device]) -> Callable[[str, str, str], Finding]:
    """With a CPU beside them, models still run; nobody asked for that, so it is told."""
    return warning if any(device.kind is DeviceKind.CPU for device in devices) else failed


def _as_for_a_worker(inherited: Mapping[str, str], devices: Sequence[Device]) -> dict[str, str]:
    visible = [device.device_id for device in devices if device.kind is DeviceKind.CUDA]
    return {**inherited, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(visible)}


async def _ask(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, or minus the signal that ended it; what it said. Nothing of it is left, however this ends."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=dict(environment)
    )
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None  # it has ended
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def _how_it_died(code: int, err: str) -> str:
    if code == -signal.SIGALRM:
        return "the driver or the engine hangs when it is loaded"
    if code < 0:
        return f"it dies by {signal.Signals(-code).name} when it is loaded"
    last = err.strip().splitlines()[-1:] or ["it says nothing"]
    return f"it does not load: {last[0]}"
