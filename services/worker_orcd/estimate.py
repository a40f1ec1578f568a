"""`python -m worker_orcd.estimate`: how much memory a model will take, asked of the engine itself.

Takes the worker's own flags, prints JSON, and ends. Nothing is loaded but the file's header: weights, caches and
buffers are laid out without being allocated, which takes about 0.1 s. The answer comes by a way that is not part of the
library's C interface, from a file that may be hostile: that is why this is a process of its own, and why it ends by
itself when time is up. Where it fails, the estimate from the header alone (`llorch.gguf.memory_estimate`) is there.
"""

import json
import signal
import sys
from dataclasses import asdict
from typing import NoReturn

from llorch.device_kind import DeviceKind
from llorch.errors import LlorchError
from llorch.gguf.model_file import read_model
from llorch.logs import configure_logging
from llorch.settings import load
from worker_orcd.engines.factory import llama_cpp_shape
from worker_orcd.engines.llama_cpp.context import context_params
from worker_orcd.engines.llama_cpp.gpus import require_gpus
from worker_orcd.engines.llama_cpp.memory_breakdown import MemoryUse, memory_breakdown
from worker_orcd.engines.llama_cpp.model import load_failure, open_model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.settings import WorkerSettings

TIME_LIMIT_S = 20
"""After this the system ends the process, in native code as well."""


def ask_engine(shape: LlamaCppShape) -> list[MemoryUse]:
    """Only ever in a process that may crash. What it opens goes with the process."""
    read_model(shape.model_path)
    native = load_native()
    if shape.devices.kind is DeviceKind.CUDA:
        require_gpus(native, shape.devices)
    model = open_model(native, shape, go_on=lambda: True, with_weights=False)
    context = native.lib.llama_init_from_model(model, context_params(native.lib, shape))
    if not context:
        raise load_failure(native, shape)
    return memory_breakdown(native.lib, context)


def main() -> NoReturn:
    signal.alarm(TIME_LIMIT_S)
    settings = load(WorkerSettings, sys.argv[1:])
    configure_logging("worker-orcd", settings.log_level)
    try:
        uses = ask_engine(llama_cpp_shape(settings))
    except (LlorchError, AttributeError) as error:
        sys.exit(f"worker-orcd: no estimate: {error}")
    print(json.dumps({"memory_bytes": [asdict(use) for use in uses]}))  # noqa: T201  its result
    sys.exit(0)


if __name__ == "__main__":
    main()
