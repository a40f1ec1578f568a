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

from llorch.errors import LlorchError
from llorch.logs import configure_logging
from llorch.settings import load
from worker_orcd.engines.registry import REGISTRY
from worker_orcd.settings import WorkerSettings

TIME_LIMIT_S = 20
"""After this the system ends the process, in native code as well."""


def main() -> NoReturn:
    signal.alarm(TIME_LIMIT_S)
    settings = load(WorkerSettings, sys.argv[1:])
    configure_logging("worker-orcd", settings.log_level)
    estimate = REGISTRY[settings.engine]().estimate
    if estimate is None:
        sys.exit(f"worker-orcd: no estimate: the engine {settings.engine} can't be asked")
    try:
        uses = estimate(settings)
    except (LlorchError, AttributeError) as error:
        sys.exit(f"worker-orcd: no estimate: {error}")
    print(json.dumps({"memory_bytes": [asdict(use) for use in uses]}))  # noqa: T201  its result
    sys.exit(0)


if __name__ == "__main__":
    main()
