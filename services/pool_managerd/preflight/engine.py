"""Whether there is an engine that can compute on the devices of this machine."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llorch import lifeline
from llorch.device_kind import DeviceKind
from llorch.engines import BY_DEVICE
from pool_managerd.devices.device import Device
from pool_managerd.devices.nvml_remedies import LOOK_AT_THE_CARD
from pool_managerd.preflight.finding import Finding, failed, ok, warning
from pool_managerd.settings import PoolManagerSettings
from pool_managerd.workers.process import ChildProcess, ProcessEnd

# -P: the current folder must not shadow a package.
ENGINE_CHECK = (sys.executable, "-P", "-m", "worker_orcd.engine_check")
_ANSWERS_WITHIN_S = 70.0
_HANGS = "the driver or the engine hangs when it is loaded"
_INSTALL = "pip install 'llama-orch[llamacpp]'"
_BUILD_FOR_GPU = (
    "install it again with the CUDA toolkit (nvcc) on the PATH: "
    'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python=={version}'
)


def needs_engine(settings: PoolManagerSettings) -> bool:
    """Made-up answers behind imaginary cards need none."""
    return not settings.simulate_gpu or settings.simulated_engine not in BY_DEVICE[DeviceKind.SIMULATED]


async def find_engine(devices: Sequence[Device], command: Sequence[str] = ENGINE_CHECK) -> Finding:
    """Asks the engine in a process of its own, as a worker would load it; takes seconds."""
    try:
        end, said = await _ask(command, _as_for_a_worker(os.environ, devices))
        if end.exit_code == 0:
            return judge(json.loads(said[-1]), devices)
    except TimeoutError:
        return failed("engine", _HANGS, LOOK_AT_THE_CARD)
    except (OSError, ValueError, LookupError) as error:
        return failed("engine", f"it can't be asked: {error}", _INSTALL)
    return failed("engine", _how_it_died(end, said), f"{_INSTALL} --force-reinstall")


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
    """With a CPU beside them, models still run, but not where the owner wants them: a warning."""
    return warning if any(device.kind is DeviceKind.CPU for device in devices) else failed


def _as_for_a_worker(inherited: Mapping[str, str], devices: Sequence[Device]) -> dict[str, str]:
    visible = [device.device_id for device in devices if device.kind is DeviceKind.CUDA]
    cards = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(visible)}
    return {**inherited, **lifeline.with_parent(), **cards}


async def _ask(command: Sequence[str], environment: Mapping[str, str]) -> tuple[ProcessEnd, list[str]]:
    """How it ended, and the lines that it wrote. Raises TimeoutError or OSError; nothing of it is left in any case.

    Not by the loop's own subprocesses: uvloop forks, and a fork beside the threads of gRPC can stop both for good.
    """
    with TemporaryDirectory() as folder:
        log = Path(folder) / "engine.log"
        process = ChildProcess.spawn(command, environment, log)
        try:
            in_time = await process.ended_within(_ANSWERS_WITHIN_S)
        finally:
            process.kill()
            end = await process.wait()
        if not in_time:
            raise TimeoutError
        return end, log.read_text(errors="replace").split("\n")[:-1]


def _how_it_died(end: ProcessEnd, said: Sequence[str]) -> str:
    if end.signal == signal.SIGALRM:
        return _HANGS
    if end.signal is not None:
        return f"it dies by {signal.Signals(end.signal).name} when it is loaded"
    return f"it does not load: {said[-1] if said else 'it says nothing'}"
