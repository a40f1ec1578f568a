"""A system from its start to its end, whatever ends it: work that is done, an error, or Ctrl-C."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from llama_orch.v2 import fleet_service_pb2
from llorch.system.local_system import LocalSystem, Report
from llorch.system.options import SystemOptions

T = TypeVar("T")
Use = Callable[[LocalSystem, fleet_service_pb2.State], Awaitable[T]]

EXIT_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def with_system(options: SystemOptions, report: Report, use: Use[T]) -> T:
    """Starts a system, calls `use` with it and its state, and ends it; nothing is left running.

    The first SIGINT, SIGTERM or SIGHUP interrupts start and `use`, and KeyboardInterrupt is raised after everything
    has ended in order. A second one kills everything and exits this process at once.
    """
    return asyncio.run(_live(LocalSystem(options, report), report, use))


async def _live(system: LocalSystem, report: Report, use: Use[T]) -> T:
    interrupted = False
    work = asyncio.ensure_future(_start_and_use(system, use))

    def on_signal() -> None:
        nonlocal interrupted
        if interrupted:
            system.kill()
            os._exit(EXIT_INTERRUPTED)
        interrupted = True
        work.cancel()
        report("", "stops; once more to stop at once")

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        return await work
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        interrupted = True
        await system.stop()


async def _start_and_use(system: LocalSystem, use: Use[T]) -> T:
    state = await system.start()
    return await use(system, state)
