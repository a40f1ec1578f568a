"""The worker's side of the process in which a template runs."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker_orcd.rendering import wire

_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_GRACE_S = 5.0
"""On top of a template's time, which is its own: for the start of its process, and for others on a busy machine."""


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """For one rendering. `seconds` are of processor time; `memory_bytes` is address space, of which Python itself takes
    about 40 MiB.
    """

    seconds: float = 2.0
    memory_bytes: int = 512 * 1024 * 1024


class RenderFailed(Exception):
    """What the template did, to be put after "the model's chat template"."""


class Renderer:
    """One template in one process, which is started anew where a template has ended it. For any thread."""

    def __init__(self, source: str, limits: RenderLimits | None = None) -> None:
        self._source = source
        self._limits = limits or RenderLimits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._closed = False

    def open(self) -> None:
        """Compiles the template. Raises RenderFailed if it is none."""
        with self._lock:
            self._start()

    def render(self, variables: Mapping[str, object], now: datetime) -> str:
        with self._lock:
            if self._process is None:
                self._start()
            return str(self._ask({"variables": variables, "now": now.isoformat()})["text"])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._end()

    def _start(self) -> None:
        """The process inherits nothing from the worker but the path of Python: no secrets, no open files."""
        if self._closed:
            raise RenderFailed("is closed already")
        ours, theirs = socket.socketpair()
        ours.settimeout(self._limits.seconds + _GRACE_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker_orcd.rendering.child", *self._arguments()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            )
        self._line = ours
        try:
            self._ask({"source": self._source})
        except RenderFailed:
            self._end()
            raise

    def _arguments(self) -> tuple[str, str]:
        return str(self._limits.memory_bytes), str(self._limits.seconds)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._line is not None  # _start made it
        try:
            wire.send(self._line, request)
            answer = wire.receive(self._line)
        except TimeoutError:
            self._end()
            raise RenderFailed(f"was not done after {self._limits.seconds + _GRACE_S:g} s") from None
        except OSError:
            answer = None
        if answer is None:
            raise RenderFailed(self._how_it_ended())
        if "problem" in answer:
            raise RenderFailed(answer["problem"])
        return answer

    def _how_it_ended(self) -> str:
        code = self._end()
        if code == -signal.SIGPROF:
            return f"took longer than {self._limits.seconds:g} s"
        return f"ended its process with code {code}"

    def _end(self) -> int:
        """Closing the socket ends a process that waits; one that does not is killed."""
        if self._process is None or self._line is None:
            return 0
        process, self._process = self._process, None
        self._line.close()
        try:
            return process.wait(timeout=_GRACE_S if self._limits.seconds < _GRACE_S else 0.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
