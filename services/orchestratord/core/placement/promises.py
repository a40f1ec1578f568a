"""Where a deterministic task goes on whose output has begun: only where the bytes are those of its first worker."""

from collections.abc import Iterator, Sequence
from itertools import islice

from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core.facts.calibration import kinds_of
from orchestratord.core.facts.fleet import Device, Node, Site, Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.task import TaskError
from orchestratord.core.placement.query import Query
from orchestratord.core.placement.worker_specs import what_to_load, what_was_loaded
from orchestratord.core.state import BrainState

_TOLD_AT_MOST = 4
"""Things that are there, in a message."""


def promise_of(state: BrainState, worker: Worker) -> Promise:
    """What a task promises whose output begins on this worker, which is ready."""
    assert worker.engine is not None  # a ready worker has told its engine
    node = state.fleet.nodes[worker.node_id]
    return Promise(worker.engine.fingerprint, kinds_of(_devices(node, worker)), worker.spec.context_per_slot)


def is_kept_by(state: BrainState, promise: Promise, worker: Worker) -> bool:
    """Whether the worker gives the bytes that were promised; of one that still loads, whether it may."""
    if worker.engine is not None:
        return promise.fingerprint.is_same_as(worker.engine.fingerprint)
    node = state.fleet.nodes[worker.node_id]
    return _may_come_of(promise, node, _devices(node, worker), what_was_loaded(worker.spec))


def may_be_kept_at(query: Query, promise: Promise, site: Site) -> bool:
    """Whether a worker that is loaded there may give the bytes that were promised."""
    return _may_come_of(
        promise, site.node, site.devices, what_to_load(query.model, site.devices, query.request.context)
    )


def why_not(query: Query, promise: Promise, site: Site) -> str:
    """Why the promise is not kept there."""
    began = promise.fingerprint
    if site.worker is not None and site.worker.engine is not None:
        return _apart(began, "the worker there has", site.worker.engine.fingerprint)
    told = what_to_load(query.model, site.devices, query.request.context)
    if known := site.node.loaded_as.get(told):
        return _apart(began, "what was loaded there last had", known)
    cards = " + ".join(kinds_of(site.devices))
    return f"the output began on {promise.words}; {cards} with a context of {told.context_per_slot} gives other bytes"


def unavailable(state: BrainState, name: str, promise: Promise) -> TaskError:
    """For a task that nothing that is there, or that could be loaded, can continue as it began."""
    there = "; ".join(islice(dict.fromkeys(_what_there_is(state, name, promise)), _TOLD_AT_MOST))
    return TaskError(
        Reason.DETERMINISM_UNAVAILABLE,
        f"deterministic: the output of '{name}' began on {promise.words}, and nothing that is there can go on with the "
        f"same bytes ({there or 'there is no device'}); bring an equal worker back, or send the request again to have "
        "all of it from what is there",
    )


def _may_come_of(promise: Promise, node: Node, devices: Sequence[Device], told: WorkerSpec) -> bool:
    """By what came of such a load there before; else the same cards may be expected to give the same bytes.

    Engine builds and drivers are known only when the worker is loaded. If it turns out to be another one, this place
    is known not to do, so that no place is tried twice.
    """
    known = node.loaded_as.get(told)
    if known is not None:
        return promise.fingerprint.is_same_as(known)
    is_alike = (kinds_of(devices), told.context_per_slot) == (promise.cards, promise.context)
    return is_alike and bool(promise.fingerprint.digest)


def _what_there_is(state: BrainState, name: str, promise: Promise) -> Iterator[str]:
    for worker in state.fleet.workers_of_model(name):
        if worker.state is WorkerState.READY and worker.engine and not is_kept_by(state, promise, worker):
            words = ", ".join(worker.engine.fingerprint.beside(promise.fingerprint))
            yield f"a worker on {worker.node_id} has {words or 'another fingerprint, or none that is proven'}"
    for node_id, failure in state.refusals.get(name, {}).items():
        yield f"loading it on {node_id} failed: {failure.message}"
    for node in state.fleet.ready_nodes():
        for device in node.devices.values():
            if device.usable:
                yield f"{device.name} of {node.node_id}{_why_not_used(state, (node.node_id, device.device_id))}"


def _why_not_used(state: BrainState, device: DeviceKey) -> str:
    if state.drains.covers(device):
        return ", whose pool is drained or about to be"
    return ", which is released" if device in state.released else ""


def _apart(began: Fingerprint, whose: str, other: Fingerprint) -> str:
    mine, theirs = ", ".join(began.beside(other)), ", ".join(other.beside(began))
    return f"the output began on {mine or 'one fingerprint'}, and {whose} {theirs or 'another, or none that is proven'}"


def _devices(node: Node, worker: Worker) -> list[Device]:
    return [node.devices[device_id] for device_id in worker.spec.device_ids if device_id in node.devices]
