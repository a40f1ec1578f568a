"""The process in which one template runs, over and over. Its standard input is a socket to the worker.

It ends by itself: when the worker closes the socket or ends, and by a signal when a template takes too long, even
in the middle of one long call into C.
"""

import resource
import signal
import socket
import sys
from datetime import datetime
from typing import Any

import jinja2

from worker_orcd.rendering import wire
from worker_orcd.rendering.program import Program, TemplateRefusal

LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 16,
}


def main() -> None:
    memory_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    for limit, value in {**LIMITS, resource.RLIMIT_AS: memory_bytes}.items():
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then closes the socket
    with socket.socket(fileno=sys.stdin.fileno()) as line:
        program: Program | None = None
        while (request := wire.receive(line)) is not None:
            # Of its own processor time: other programs of a busy machine are no fault of the template.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            program, answer = _serve(program, request)
            signal.setitimer(signal.ITIMER_PROF, 0)
            wire.send(line, answer)


def _serve(program: Program | None, request: dict[str, Any]) -> tuple[Program | None, dict[str, Any]]:
    """The first request brings the template, every other one variables for it."""
    try:
        if program is None:
            return Program(request["source"]), {}
        return program, {"text": program.render(request["variables"], datetime.fromisoformat(request["now"]))}
    except TemplateRefusal as error:
        return program, {"problem": f"says: {error}"}
    except MemoryError:
        return program, {"problem": "needs more memory than it may have"}
    except jinja2.TemplateSyntaxError as error:
        return program, {"problem": f"can't be compiled: {error}"}
    except Exception as error:  # noqa: BLE001  whatever a template gets wrong in Python is told by its name
        return program, {"problem": f"failed with {type(error).__name__}"}


if __name__ == "__main__":
    main()
