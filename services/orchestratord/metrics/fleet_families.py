"""Metrics of nodes, devices and workers, as their nodes report them."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import Metric

from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Device, Node, Worker
from orchestratord.core.state import BrainState
from orchestratord.metrics.families import Labels, gauge
from orchestratord.views import nodes as view_nodes
from orchestratord.views import workers as view_workers

_MIB = 1024 * 1024
_DEVICE = ("node", "device", "card")
_REPLICA = ("model", "pool_id", "replica_id", "engine", "engine_version")


class ReplicaNumbers:
    """A small number for each worker of a model, given again when it is gone: worker ids are used once, and every new
    value of a label costs the scraper a series.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def update(self, workers: list[Worker]) -> dict[str, str]:
        """By worker id."""
        present = {(worker.spec.model, worker.worker_id) for worker in workers}
        self._numbers = {place: number for place, number in self._numbers.items() if place in present}
        for model, worker_id in sorted(present - self._numbers.keys()):
            taken = {number for (other, _), number in self._numbers.items() if other == model}
            self._numbers[model, worker_id] = next(n for n in range(len(taken) + 1) if n not in taken)
        return {worker_id: str(number) for (_, worker_id), number in self._numbers.items()}


def nodes(state: BrainState, now: float) -> Iterator[Metric]:
    found = Counter(view_nodes.state_of(state, node) for node in state.fleet.nodes.values())
    counts: dict[Labels, float] = {(known.lower(),): found[known] for known in view_nodes.ShownState}
    yield gauge("nodes", "Nodes by state.", ("state",), counts)
    ages: dict[Labels, float] = {
        (node.node_id,): max(0.0, now - node.last_report_at) for node in state.fleet.nodes.values()
    }
    yield gauge("node_report_age_seconds", "Time since the last report of a node.", ("node",), ages)


def devices(state: BrainState) -> Iterator[Metric]:
    """A device that is not known to have something (a fan, ECC) has no such sample."""
    found = [(node, device) for node in state.fleet.nodes.values() for device in node.devices.values()]

    def of_devices(name: str, text: str, amount: Callable[[Node, Device], float | None]) -> Metric:
        amounts = {_device_labels(node, device): amount(node, device) for node, device in found}
        return gauge(f"device_{name}", text, _DEVICE, {at: known for at, known in amounts.items() if known is not None})

    yield of_devices("usable", "1 if it answers and may be used.", lambda _, device: float(device.usable))
    yield of_devices("memory_total_bytes", "Memory.", lambda _, device: device.total_mib * _MIB)
    yield of_devices(
        "memory_others_bytes", "Memory that other programs use.", lambda _, device: device.others_mib * _MIB
    )
    yield of_devices(
        "memory_reserved_bytes",
        "Memory that models hold or are promised.",
        lambda node, device: state.ledger.held((node.node_id, device.device_id)) * _MIB,
    )
    yield of_devices("memory_used_bytes", "Memory in use by all processes.", _reported("memory_used_mib", _MIB))
    yield of_devices("utilization_ratio", "Share of time in which it computed.", _reported("utilization_percent", 0.01))
    yield of_devices("temperature_celsius", "Temperature.", _reported("temperature_c"))
    yield of_devices("power_watts", "Power draw.", _reported("power_w"))
    yield of_devices("ecc_errors", "Uncorrected memory errors since the driver started.", _reported("ecc_errors"))
    yield of_devices("throttled", "1 while clocks are held down for heat or power.", _reported("throttled"))


def workers(state: BrainState, numbers: ReplicaNumbers) -> Iterator[Metric]:
    all_workers = state.fleet.workers.values()
    found = Counter((worker.spec.model, view_workers.state_of(worker).lower()) for worker in all_workers)
    yield gauge("model_workers", "Workers of a model, by state.", ("model", "state"), found)
    ready = [worker for worker in state.fleet.workers.values() if worker.state is WorkerState.READY and worker.engine]
    number_of = numbers.update(ready)
    labels = {worker.worker_id: _replica_labels(state, worker, number_of[worker.worker_id]) for worker in ready}
    slots: dict[Labels, float] = {labels[w.worker_id]: w.engine.slots for w in ready if w.engine}
    busy: dict[Labels, float] = {labels[worker.worker_id]: len(worker.attempts) for worker in ready}
    yield gauge("replica_slots", "Requests that a worker takes at once.", _REPLICA, slots)
    yield gauge("replica_slots_busy", "Requests that a worker has.", _REPLICA, busy)


def _device_labels(node: Node, device: Device) -> Labels:
    return node.node_id, device.device_id, device.name


def _replica_labels(state: BrainState, worker: Worker, number: str) -> Labels:
    assert worker.engine is not None  # only those that have told it are asked for
    node = state.fleet.nodes.get(worker.node_id)
    pools = node.pools.values() if node else ()
    pool_id = next((pool.pool_id for pool in pools if set(worker.spec.device_ids) <= set(pool.device_ids)), "")
    return worker.spec.model, pool_id, number, worker.engine.engine, worker.engine.engine_version


def _reported(field: str, factor: float = 1.0) -> Callable[[Node, Device], float | None]:
    """The value in the node's own report; None where it has none."""

    def amount(_: Node, device: Device) -> float | None:
        report: Any = device.report
        if report is None or (field in _OPTIONAL and not report.HasField(field)):
            return None
        return float(getattr(report, field)) * factor

    return amount


_OPTIONAL = frozenset({"utilization_percent", "temperature_c", "power_w", "ecc_errors"})
