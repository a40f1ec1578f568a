"""Workers as people name them: by the end of an id that `llorch ps` shows, or by the model."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llorch.errors import FailedPrecondition, NotFound, Reason

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2

_SHORTEST = 6


@dataclass(frozen=True, slots=True)
class KnownWorker:
    """`what` tells two workers of a model apart, for people."""

    worker_id: str
    model: str
    what: str


def known_workers(state: "fleet_service_pb2.State") -> list[KnownWorker]:
    """Those that live, then those that are on their way or failed to load."""
    from llorch.cli.naming import worker_place

    found = {
        worker.spec.worker_id: KnownWorker(
            worker.spec.worker_id, worker.spec.model, f"on {worker_place(worker, state.devices)}"
        )
        for worker in state.workers
    }
    for failure in state.load_failures:
        if failure.worker_id:
            failed = KnownWorker(failure.worker_id, failure.model, f"failed on {failure.node_id}")
            found.setdefault(failure.worker_id, failed)
    return list(found.values())


def short_ids(worker_ids: Iterable[str]) -> dict[str, str]:
    """The last characters of each id, as many as tell all apart: ids begin with the time, and look alike there."""
    known = list(worker_ids)
    for length in range(_SHORTEST, max(map(len, known), default=0)):
        shown = {worker_id: worker_id[-length:] for worker_id in known}
        if len(set(shown.values())) == len(known):
            return shown
    return {worker_id: worker_id for worker_id in known}


def find_worker(name: str, workers: Iterable[KnownWorker]) -> str:
    """The id that is meant: an id or its beginning or end, or a model that has one worker.

    A whole id that is not known here may be of a worker that has ended. Raises `NotFound`, or `FailedPrecondition`
    where several are meant.
    """
    known = list(workers)
    is_part = len(name) >= _SHORTEST
    readings = (
        [worker for worker in known if worker.worker_id == name],
        [worker for worker in known if worker.model == name],
        [worker for worker in known if is_part and worker.worker_id.endswith(name)],
        [worker for worker in known if is_part and worker.worker_id.startswith(name)],
    )
    for found in readings:
        if len(found) == 1:
            return found[0].worker_id
        if found:
            raise _several(name, found)
    if name.startswith("worker-"):
        return name
    raise _no_such_worker(name, known)


def _several(name: str, found: list[KnownWorker]) -> Exception:
    short = short_ids(worker.worker_id for worker in found)
    choices = "".join(f"\n  {short[worker.worker_id]}  {worker.model} {worker.what}" for worker in found)
    return FailedPrecondition(Reason.WORKER_NOT_FOUND, f"{name} has {len(found)} workers; say which one:{choices}")


def _no_such_worker(name: str, known: list[KnownWorker]) -> Exception:
    near = difflib.get_close_matches(name, [worker.model for worker in known], n=1)
    hint = f"did you mean {near[0]}?" if near else "`llorch ps` lists them; a model has one while it is loaded"
    return NotFound(Reason.WORKER_NOT_FOUND, f"no worker is called {name}; {hint}")
