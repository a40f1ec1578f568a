"""Stops a long evaluation from another thread, without Python in the way.

The library asks a callback, between two operations, whether it shall stop. The callback is libc's `strlen`, and
what it measures are two bytes of ours: empty means go on. So an evaluation never waits for Python's lock.
CPU only: a GPU is handed whole graphs, and its pieces are short.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class AbortSwitch:
    """`watching` belongs to the engine's thread; `abort` may be called on any thread."""

    def __init__(self, lib: Any, context: Any) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self._callback = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        self._lock = threading.Lock()
        self._watched: str | None = None
        lib.llama_set_abort_callback(context, self._callback, ctypes.cast(self._flag, ctypes.c_void_p))

    @contextmanager
    def watching(self, attempt_id: str) -> Iterator[None]:
        """What is evaluated meanwhile is for this run alone."""
        with self._lock:
            self._watched = attempt_id
        try:
            yield
        finally:
            with self._lock:
                self._watched = None
                self._flag[0] = b"\0"

    def abort(self, attempt_id: str | None = None) -> None:
        """Stops the evaluation if it is for this run, or for any; what is evaluated for several runs goes on."""
        with self._lock:
            if self._watched is not None and attempt_id in (self._watched, None):
                self._flag[0] = b"\1"
