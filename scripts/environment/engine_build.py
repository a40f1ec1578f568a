"""Which build of the engine (llama-cpp-python) this machine gets. Pure: facts in, plan out.

The engine ships as source and is compiled here. On a machine with an NVIDIA driver it has to be a CUDA
build: a CPU build gets there only if the user asked for it explicitly.
"""

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path

CPU_CMAKE_ARGS = "-DLLAVA_BUILD=OFF -DGGML_OPENMP=OFF -DCMAKE_CXX_FLAGS=-fno-dse"
"""GCC before 15 drops stores that its AMX intrinsics read, and the engine crashes; `-fno-dse` prevents that, and costs
nothing that can be measured.
"""

CUDA_CMAKE_ARGS = f"-DGGML_CUDA=on {CPU_CMAKE_ARGS}"


class Engine(StrEnum):
    """What an engine can run on; NONE: there is none, or one of another version."""

    NONE = "none"
    CPU = "cpu"
    GPU = "gpu"


class Build(Enum):
    KEEP = "keep"
    """The one in the environment is right."""
    CPU = "cpu"
    CUDA = "cuda"
    CUDA_WHEEL = "cuda wheel"
    """A CUDA build that was made here earlier, from its kept wheel."""
    STOP = "stop"
    """Nothing can be done without the user; `Plan.say` tells what."""


@dataclass(frozen=True, slots=True)
class Facts:
    requirement: str
    """The engine as pip takes it, e.g. `llama-cpp-python==0.3.36`."""
    pip: str
    """The environment's pip, as a command for the user."""
    cpu_asked_for: bool = False
    nvidia_driver: str | None = None
    """What shows that there is one, e.g. `/proc/driver/nvidia/version`."""
    nvcc: Path | None = None
    installed: Engine = Engine.NONE
    """In the environment."""
    cuda_wheel: Path | None = None
    in_pip_cache: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    build: Build
    say: str = ""
    """For the user, before it begins."""
    environment: dict[str, str] = field(default_factory=dict)
    """Additions to the environment of the compilation."""
    hint: str = ""
    """For the user, if it fails."""


def choose_engine_build(facts: Facts) -> Plan:
    if facts.nvidia_driver and not facts.cpu_asked_for:
        return _with_gpu(facts, facts.nvidia_driver)
    if facts.installed is not Engine.NONE:
        return Plan(Build.KEEP)
    time = (
        "from the wheel in pip's cache, some seconds"
        if facts.in_pip_cache
        else "about 3-10 minutes on 2 cores, once; pip keeps the result for the next time"
    )
    return Plan(Build.CPU, f"Building the engine for the CPU: {time}.", {"CMAKE_ARGS": CPU_CMAKE_ARGS})


def _with_gpu(facts: Facts, driver: str) -> Plan:
    if facts.installed is Engine.GPU:
        return Plan(Build.KEEP)
    if facts.cuda_wheel:
        return Plan(Build.CUDA_WHEEL, f"Installing the CUDA build that was made earlier, {facts.cuda_wheel}.")
    if facts.nvcc:
        return Plan(
            Build.CUDA,
            f"NVIDIA driver found ({driver}): building the engine with CUDA by {facts.nvcc}. "
            "This takes 10-30 minutes, once; the result is kept for the next time.",
            {"CMAKE_ARGS": CUDA_CMAKE_ARGS, "CUDACXX": str(facts.nvcc)},
            hint=_if_the_cuda_build_fails(facts),
        )
    return Plan(Build.STOP, _without_nvcc(facts, driver))


def _without_nvcc(facts: Facts, driver: str) -> str:
    return f"""\
This machine has an NVIDIA driver ({driver}), but no engine built for it, and no nvcc to build one.
Do one of these, then run the same make command again:

{_prebuilt(facts)}
  - Install the CUDA toolkit (Debian, Ubuntu: sudo apt install nvidia-cuda-toolkit); the engine is then built here.
{_ON_THE_CPU}"""


def _if_the_cuda_build_fails(facts: Facts) -> str:
    return f"""\
nvcc is there, but the build needs the whole CUDA toolkit, cuBLAS included, in a version that fits the driver and
the compiler. If that can't be had, do one of these, then run the same make command again:

{_prebuilt(facts)}
{_ON_THE_CPU}"""


def _prebuilt(facts: Facts) -> str:
    return f"""\
  - Install upstream's prebuilt CUDA wheel. Its README lists one index per CUDA version under "Installation":
      {facts.pip} install "{facts.requirement}" --force-reinstall --only-binary llama-cpp-python \\
        --extra-index-url INDEX_FOR_YOUR_CUDA"""


_ON_THE_CPU = """\
  - Run on the CPU all the same, which is much slower:
      make demo CPU=1

No CPU build is installed on a machine with a GPU unless you say so."""
