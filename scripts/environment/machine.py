"""What this machine has: an NVIDIA driver, a CUDA compiler, a C++ compiler."""

import ctypes
import os
import shutil
from pathlib import Path

DRIVER_FILE = Path("/proc/driver/nvidia/version")
DRIVER_LIBRARY = "libnvidia-ml.so.1"
USUAL_CUDA = Path("/usr/local/cuda")


def find_nvidia_driver() -> str | None:
    """What shows that there is one. Any of three, since containers and WSL have only some of them."""
    if DRIVER_FILE.exists():
        return str(DRIVER_FILE)
    if tool := shutil.which("nvidia-smi"):
        return tool
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return None
    return DRIVER_LIBRARY


def find_nvcc() -> Path | None:
    """On the PATH, else where the toolkit's installer puts it."""
    if found := shutil.which("nvcc"):
        return Path(found)
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), USUAL_CUDA):
        if root and (nvcc := Path(root) / "bin" / "nvcc").is_file():
            return nvcc
    return None


def has_cpp_compiler() -> bool:
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in (named, "c++", "g++", "clang++") if name)
