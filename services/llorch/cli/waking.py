"""An event loop that Ctrl-C always wakes."""

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MORE_THAN_COMES = 4096


@contextmanager
def woken_by_signals() -> Iterator[None]:
    """For the running loop. Python handles a signal once its main thread goes on; `asyncio.run` leaves that to the call
    in which the loop waits, which a signal interrupts only if it comes during the call. One that comes in the moment
    before, or in another thread, would not be heard until something else happens.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    loop = asyncio.get_running_loop()
    ours, pythons = socket.socketpair()
    with ours, pythons:
        for end in (ours, pythons):
            end.setblocking(False)
        loop.add_reader(ours, ours.recv, _MORE_THAN_COMES)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(ours)
