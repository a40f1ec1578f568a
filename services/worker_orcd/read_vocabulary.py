"""`python -m worker_orcd.read_vocabulary ENGINE MODEL_FILE`: answers about the tokens of a model that is not loaded.

The pool manager starts it and asks it through a socket, which is its standard input. Of the model's file it reads what
tokens are made by, no weights. The file may be hostile, and native code reads it: that is why this is a process of its
own, without secrets and with little memory. It ends by itself when the pool manager closes the socket or ends, and by a
signal when an answer takes too long, in native code as well.
"""

import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from llorch import lifeline
from llorch.engines import EngineName
from llorch.errors import FailedPrecondition, InvalidArgument, LlorchError, Reason, Unavailable
from llorch.rpc.status import status_details
from llorch.vocabulary_line import Kind, Said, receive, send
from worker_orcd.convert.tokens import answer_to_bytes, question_of_bytes
from worker_orcd.engines.registry import REGISTRY
from worker_orcd.token_reader import TokenReader, answer

ANSWER_WITHIN_S = 20
"""That long an answer may take; the first one includes the start."""

LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 64,
    resource.RLIMIT_DATA: 2 * 2**30,
}
"""The largest vocabularies take a few hundred MiB, and a text of the most bytes as much again."""
_NICE = 5
"""What runs beside it goes first."""


def main() -> NoReturn:
    lifeline.end_with_parent()
    signal.alarm(ANSWER_WITHIN_S)
    for limit, value in LIMITS.items():
        _, highest = resource.getrlimit(limit)
        allowed = value if highest == resource.RLIM_INFINITY else min(value, highest)
        resource.setrlimit(limit, (allowed, allowed))
    os.nice(_NICE)
    engine, path = sys.argv[1:]
    with socket.socket(fileno=sys.stdin.fileno()) as line:
        reader: TokenReader | None = None
        while (said := receive(line)) is not None:
            signal.alarm(ANSWER_WITHIN_S)
            try:
                reader = reader or _opened(engine, Path(path))
            except LlorchError as error:
                send(line, Said(Kind.FAILED, status_details(error)))
                break
            said_back = _said_to(reader, said)
            send(line, said_back)
            signal.alarm(0)
            if said_back.kind is Kind.FAILED:
                break
        signal.alarm(ANSWER_WITHIN_S)
        if reader is not None:
            reader.close()
    os._exit(0)  # not by way of the library's own end: a file may have left anything behind in there


def _opened(engine: str, path: Path) -> TokenReader:
    try:
        return REGISTRY[EngineName(engine)]().open_vocabulary(path)
    except MemoryError:
        raise FailedPrecondition(
            Reason.MODEL_FILE_INVALID, f"the vocabulary in {path.name} needs more memory than one may have"
        ) from None


def _said_to(reader: TokenReader, said: Said) -> Said:
    try:
        return Said(Kind.ANSWER, answer_to_bytes(answer(reader, question_of_bytes(said.content))))
    except LlorchError as error:
        return Said(Kind.REFUSED, status_details(error))
    except MemoryError:
        too_large = InvalidArgument(Reason.REQUEST_TOO_LARGE, "the text needs more memory than there is; send less")
        return Said(Kind.REFUSED, status_details(too_large))
    except Exception as error:  # noqa: BLE001  # its text may have parts of what was asked; the kind tells enough
        failure = Unavailable(Reason.ENGINE_FAILED, f"the vocabulary could not be read: {type(error).__name__}")
        return Said(Kind.FAILED, status_details(failure))


if __name__ == "__main__":
    main()
