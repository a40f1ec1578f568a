"""Whether weights may be moved into the memory that AMX works on: a CPU with it is two to four times as fast then."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from llorch.logs import get_logger
from worker_orcd.engines.llama_cpp.native import Native

_BUILT_IN = "AMX_INT8 = 1"
_PROBE = Path(__file__).with_name("amx_probe.py")
_TIME_LIMIT_S = 30
_REMEDY = (
    "rebuild llama-cpp-python with CMAKE_ARGS='-DCMAKE_CXX_FLAGS=-fno-dse' (make does it after "
    "`pip cache remove llama_cpp_python` and `make clean`)"
)
_log = get_logger("llama.cpp")


def has_amx(native: Native) -> bool:
    """Built for it; whether it works is another question."""
    return _BUILT_IN in native.system_info()


def may_repack(native: Native) -> bool:
    """False only for a build with AMX that a trial in another process showed to be broken."""
    return not has_amx(native) or amx_works()


@cache
def amx_works() -> bool:
    """Takes about 0.2 s, once per process."""
    try:
        probe = subprocess.run([sys.executable, _PROBE], check=False, capture_output=True, timeout=_TIME_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("amx_not_used", why=f"the trial could not be made: {error}")
        return False
    if probe.returncode != 0:
        _log.warning("amx_not_used", why=f"the trial ended with {probe.returncode}", remedy=_REMEDY)
    return probe.returncode == 0
