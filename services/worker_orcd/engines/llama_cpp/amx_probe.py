"""Whether this build of llama.cpp multiplies matrices rightly with AMX: ends with 0 if it does, with 3 if it has none.

GCC's `_tile_loadconfig` tells the optimiser of 8 of the 64 bytes that it reads, so that GCC drops the stores to the
others (seen with version 12; `-fno-dse` prevents it). Such a build crashes in its first product, or computes nonsense.
So one is tried out in a process that may crash, and that the kernel ends with the one that waits for it. The set-up
runs this file as well, before the project is installed: it needs nothing of it.
"""

import ctypes
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_TIME_LIMIT_S = 30

if __name__ == "__main__":  # before any native code is loaded, which may hang
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(_TIME_LIMIT_S)

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from llama_cpp import llama_cpp  # noqa: E402

ROWS, INNER, COLUMNS = 64, 64, 4
"""Of the product; from two columns on, tiles are used."""

TOLERANCE = 0.05
"""Both factors are rounded to 8 bits."""

WORKS, WRONG, NONE = 0, 1, 3
"""Exit codes."""

_F32, _Q8_0 = 0, 8
_CPU = 0


class _InitParams(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class _Ggml:
    """The few functions that are needed, all of them with pointers."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(llama_cpp._lib._name)  # noqa: SLF001  the package names its library nowhere else

    def __getattr__(self, name: str) -> Any:
        function = self._library[name]
        function.restype = ctypes.c_void_p
        return function

    def open_context(self) -> ctypes.c_void_p:
        self._library.ggml_init.argtypes = [_InitParams]
        return ctypes.c_void_p(self.ggml_init(_InitParams(2**20, None, True)))

    def tensor(self, context: ctypes.c_void_p, kind: int, inner: int, outer: int) -> ctypes.c_void_p:
        sizes = ctypes.c_int64(inner), ctypes.c_int64(outer)
        return ctypes.c_void_p(self.ggml_new_tensor_2d(context, ctypes.c_int(kind), *sizes))

    def set(self, tensor: ctypes.c_void_p, content: Any, size: int) -> None:
        self.ggml_backend_tensor_set(tensor, content, ctypes.c_size_t(0), ctypes.c_size_t(size))


def amx_memory(ggml: _Ggml) -> ctypes.c_void_p | None:
    """The kind of memory that weights have to be in for AMX; None if this build, or this machine, has none."""
    device = ctypes.c_void_p(ggml.ggml_backend_dev_by_type(ctypes.c_int(_CPU)))
    registry = ctypes.c_void_p(ggml.ggml_backend_dev_backend_reg(device))
    address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return None
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
    for at in range(16):
        if not kinds[at]:
            break
        kind = ctypes.c_void_p(kinds[at])
        if ctypes.string_at(ggml.ggml_backend_buft_name(kind)) == b"AMX":
            return kind
    return None


def product(ggml: _Ggml, memory: ctypes.c_void_p, weights: npt.NDArray[Any], inputs: npt.NDArray[Any]) -> Any:
    """`inputs` (COLUMNS × INNER) times `weights` (ROWS × INNER) transposed, as the library computes it. What is opened
    goes with the process.
    """
    backend = ctypes.c_void_p(ggml.ggml_backend_cpu_init())
    weight_context, context = ggml.open_context(), ggml.open_context()
    weight = ggml.tensor(weight_context, _Q8_0, INNER, ROWS)
    ggml.ggml_backend_alloc_ctx_tensors_from_buft(weight_context, memory)
    entered = ggml.tensor(context, _F32, INNER, COLUMNS)
    result = ctypes.c_void_p(ggml.ggml_mul_mat(context, weight, entered))
    graph = ctypes.c_void_p(ggml.ggml_new_graph(context))
    ggml.ggml_build_forward_expand(graph, result)
    ggml.ggml_backend_alloc_ctx_tensors(context, backend)

    packed = ctypes.create_string_buffer(weights.nbytes)
    shape = ctypes.c_int64(0), ctypes.c_int64(ROWS), ctypes.c_int64(INNER)
    source = weights.ctypes.data_as(ctypes.c_void_p)
    size = ggml.ggml_quantize_chunk(ctypes.c_int(_Q8_0), source, packed, *shape, None)
    ggml.set(weight, packed, size)
    ggml.set(entered, inputs.ctypes.data_as(ctypes.c_void_p), inputs.nbytes)
    ggml.ggml_backend_graph_compute(backend, graph)
    computed = np.empty((COLUMNS, ROWS), np.float32)
    target = computed.ctypes.data_as(ctypes.c_void_p)
    ggml.ggml_backend_tensor_get(result, target, ctypes.c_size_t(0), ctypes.c_size_t(computed.nbytes))
    return computed


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ggml = _Ggml()
    memory = amx_memory(ggml)
    if memory is None:
        return NONE
    chance = np.random.default_rng(1)
    weights = chance.uniform(-1, 1, (ROWS, INNER)).astype(np.float32)
    inputs = chance.uniform(-1, 1, (COLUMNS, INNER)).astype(np.float32)
    difference = np.abs(product(ggml, memory, weights, inputs) - inputs @ weights.T)
    return WORKS if difference.max() < TOLERANCE * np.sqrt(INNER) else WRONG


if __name__ == "__main__":
    sys.exit(main())
