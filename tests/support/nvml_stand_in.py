"""A machine's GPUs as a test wants them, behind a library that plays NVIDIA's (nvml_stand_in.c).

In this process the real binding, nvidia-ml-py, is loaded a second time and given the library; in a child process it
finds the library by itself, as it finds the real one.
"""

import ctypes
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY_NAME = "libnvidia-ml.so.1"

# Codes of nvml.h (nvmlReturn_t).
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15
VERSION_MISMATCH = 18
UNKNOWN_ERROR = 999


@dataclass
class StandInProcess:
    """`used_mib` None: the driver knows the process and no figure."""

    pid: int
    used_mib: int | None
    draws: bool = False


@dataclass
class StandInGpu:
    """What a figure of None means: this card does not have it."""

    uuid: str
    name: str = "NVIDIA GeForce RTX 3090"
    total_mib: int | None = 24576
    used_mib: int = 1000
    error: int = 0
    utilisation_percent: int | None = 37
    temperature_c: int | None = 55
    power_mw: int | None = 123_456
    ecc_errors: int | None = None
    throttle_bits: int | None = 0
    capability: tuple[int, int] = (8, 6)
    processes: list[StandInProcess] = field(default_factory=list)


class NvmlStandIn:
    """`show` tells the library what there is from now on.

    `driver_load` grows when the driver is loaded anew, which makes everything that was opened before worthless.
    """

    def __init__(self, folder: Path, *gpus: StandInGpu, process_lists: bool = True) -> None:
        self.gpus = list(gpus)
        self.driver_load = 1
        self.init_error = 0
        self.hangs = False
        self.tells_processes = True
        self._folder = folder
        self._world = folder / "gpus.tsv"
        self._library = _built(folder, process_lists=process_lists)
        self.show()

    def show(self, **changed: Any) -> None:
        for name, value in changed.items():
            setattr(self, name, value)
        driver = ("570.124.06", self.driver_load, self.init_error, int(self.hangs), int(self.tells_processes))
        lines = [_line("driver", *driver), *(_gpu_line(gpu) for gpu in self.gpus)]
        for index, gpu in enumerate(self.gpus):
            lines += [_line("process", index, it.pid, _figure(it.used_mib), int(it.draws)) for it in gpu.processes]
        draft = self._world.with_suffix(".draft")
        draft.write_text("".join(lines))
        draft.replace(self._world)

    def binding(self) -> Any:
        """The module `pynvml`, a copy of its own, over this library."""
        library = ctypes.CDLL(str(self._library))
        library.nvml_stand_in_use(str(self._world).encode())
        real = importlib.util.find_spec("pynvml")
        assert real is not None
        assert real.origin is not None
        spec = importlib.util.spec_from_file_location("pynvml_over_a_stand_in", real.origin)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # the binding looks for itself there while it is loaded
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[spec.name]
        module.nvmlLib = library  # loaded already, so it does not look for the real one
        return module

    def environment(self) -> Mapping[str, str]:
        """What a child process needs to find this library where it looks for NVIDIA's."""
        return {"LD_LIBRARY_PATH": str(self._library.parent), "NVML_STAND_IN": str(self._world)}


def _built(folder: Path, *, process_lists: bool) -> Path:
    """A file of its own for every stand-in: the library keeps its state in static variables."""
    path = folder / LIBRARY_NAME
    path.write_bytes(_compiled(process_lists=process_lists))
    return path


@cache
def _compiled(*, process_lists: bool) -> bytes:
    """Needs a C compiler, as the set-up of this project does."""
    switches = [] if process_lists else ["-DWITHOUT_PROCESS_LISTS"]
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY_NAME}", *switches]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / LIBRARY_NAME
        done = subprocess.run([*command, "-o", str(made), str(SOURCE)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return made.read_bytes()


def _gpu_line(gpu: StandInGpu) -> str:
    figures = (gpu.utilisation_percent, gpu.temperature_c, gpu.power_mw, gpu.ecc_errors, gpu.throttle_bits)
    memory = (gpu.error, _figure(gpu.total_mib), gpu.used_mib)
    return _line("gpu", gpu.uuid, gpu.name, *memory, *map(_figure, figures), *gpu.capability)


def _figure(value: int | None) -> int:
    return -1 if value is None else value


def _line(*fields: str | int) -> str:
    return "\t".join(map(str, fields)) + "\n"
