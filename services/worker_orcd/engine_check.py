"""`python -m worker_orcd.engine_check`: what the engine that is installed here can compute on, as JSON.

For the pool manager's preflight, which never loads the engine into its own process. Takes no memory of any GPU: the
devices are counted, not opened. The driver may hang or crash underneath, so the process ends by itself when time is up,
and with the pool manager.
"""

import ctypes
import json
import signal
import sys
from typing import Any, NoReturn

from llorch import lifeline
from llorch.errors import LlorchError
from worker_orcd.engines.llama_cpp.native import load_native

TIME_LIMIT_S = 60
"""A host with many GPUs and no persistence mode wakes them one after the other."""

_GPU = 1  # GGML_BACKEND_DEVICE_TYPE_GPU


def ask_engine() -> dict[str, Any]:
    """Raises `LlorchError` where there is no engine."""
    native = load_native()
    offload = bool(native.lib.llama_supports_gpu_offload())
    return {"version": native.version, "gpu_offload": offload, "gpus": _gpu_names() if offload else []}


def _gpu_names() -> list[str]:
    from llama_cpp import _ggml

    ggml: Any = _ggml.libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    found = [ggml.ggml_backend_dev_get(number) for number in range(ggml.ggml_backend_dev_count())]
    gpus = [device for device in found if ggml.ggml_backend_dev_type(device) == _GPU]
    return [ggml.ggml_backend_dev_description(device).decode(errors="replace") for device in gpus]


def main() -> NoReturn:
    lifeline.end_with_parent()
    signal.alarm(TIME_LIMIT_S)
    try:
        answer = ask_engine()
    except LlorchError as error:
        answer = {"missing": error.message}
    print(json.dumps(answer))  # noqa: T201  # its result
    sys.exit(0)


if __name__ == "__main__":
    main()
