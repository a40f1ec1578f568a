"""Runs a daemon in the event loop: signals, exit codes, and no traceback for a user."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import uvloop

from llorch import lifeline
from llorch.errors import Internal, InvalidArgument, LlorchError, Reason
from llorch.exception_groups import root_of
from llorch.leaving import leave
from llorch.logs import configure_logging, get_logger
from llorch.own_log import OwnLog
from llorch.ports import PortTaken
from llorch.rpc.wakeups import wake_once

EXIT_FAILED = 1
EXIT_SETTINGS = 2
EXIT_NO_DEVICE = 4
_EXIT_INTERRUPTED = 130
_THREADS_END_WITHIN_S = 5.0
"""Once all is closed in order: what is left are threads that can't be cancelled."""

Main = Callable[[asyncio.Event], Awaitable[None]]


def run(main: Main, name: str, *, log_level: str = "info", own_log: OwnLog | None = None) -> NoReturn:
    """Runs a daemon until it is done, and exits the process.

    `main` gets an event that the first SIGTERM or SIGINT sets: it then drains and returns. A second signal
    cancels it, a third ends the process where it stands. The message of a `LlorchError` that leaves `main`
    goes to stderr, with exit code 2 if settings are to be corrected, 4 if there is no device to run models on, else 1.
    Any other exception goes to the log, and is 1. Where the process that started this one asks
    for it (`llorch.lifeline`), its end counts as a first signal. `own_log` is kept short meanwhile.
    """
    # The core of gRPC writes to stderr by itself; what matters of it comes as a status.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    wake_once()
    configure_logging(name, log_level)
    leave(_run(partial(_with_short_log, main, own_log), name))


def _run(main: Main, name: str) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(_until_signalled(main))
            except BaseException:
                _wait_for_threads(EXIT_FAILED, name)
                raise
            _wait_for_threads(0, name)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the last one who can report it
        return _report(name, error)
    return 0


async def _with_short_log(main: Main, own_log: OwnLog | None, stop: asyncio.Event) -> None:
    if own_log is None:
        await main(stop)
        return
    rotating = asyncio.create_task(own_log.rotate_forever(), name="own log")
    try:
        await main(stop)
    finally:
        rotating.cancel()


def _wait_for_threads(code: int, name: str) -> None:
    """For a while, from now on: the loop waits for them without end where it is closed."""

    def give_up() -> None:
        get_logger(name).warning("threads_did_not_end", waited_s=_THREADS_END_WITHIN_S)
        leave(code)

    timer = threading.Timer(_THREADS_END_WITHIN_S, give_up)
    timer.daemon = True
    timer.start()


async def _until_signalled(main: Main) -> None:
    stop = asyncio.Event()
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if not stop.is_set():
            stop.set()
        elif running is not None and not running.cancelling():
            running.cancel()
        else:
            os._exit(_EXIT_INTERRUPTED)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    lifeline.watch(stop.set)
    await main(stop)


def _report(name: str, error: BaseException) -> int:
    cause = root_of(error)
    if isinstance(cause, asyncio.CancelledError):
        return _EXIT_INTERRUPTED
    if isinstance(cause, LlorchError) and not isinstance(cause, Internal):
        for line in cause.message.splitlines():
            print(f"{name}: {line}", file=sys.stderr)  # noqa: T201  # for the user
        return _exit_code(cause)
    get_logger(name).error("daemon_failed", exc_info=cause)
    return EXIT_FAILED


def _exit_code(error: LlorchError) -> int:
    if error.reason is Reason.NO_DEVICE:
        return EXIT_NO_DEVICE
    return EXIT_SETTINGS if _is_about_settings(error) else EXIT_FAILED


def _is_about_settings(error: LlorchError) -> bool:
    return isinstance(error, (PortTaken, InvalidArgument)) or error.reason is Reason.TOKEN_MISSING
