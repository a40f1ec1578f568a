"""How much a node's report may bring. A pool manager is let in with a token, and all the same its host may be mistaken.

What only people look at is cut. What decisions are made on is refused by name: with a part of its devices or workers a
node would be taken for another one. Of models the first ones are taken, so that a folder of too many is of use.
"""

from collections.abc import Iterator

from google.protobuf.message import Message

from llama_orch.v2 import node_link_pb2
from llorch.errors import invalid_field
from orchestratord.core.facts.fleet import MOST_DEVICES, MOST_WORKERS

MOST_MODELS = 10_000
"""Files that a node has, each a few hundred bytes: twice what a pool manager offers of its folder."""
MOST_LABELS = 64
MOST_PROCESSES = 256
"""Per device."""

_LONGEST_NAME = 256
"""Bytes of an id, an address, a version or a label."""
_LARGEST_DEVICE = 64 * 1024
_LARGEST_WORKER = 256 * 1024
_LARGEST_MODEL = 8 * 1024
"""Bytes of the whole entry, with all of its strings and lists."""


def check_register(register: node_link_pb2.Register) -> None:
    """Raises InvalidArgument. What the first report of a link has beside its snapshot."""
    for name in ("node_id", "instance_id", "version", "advertise_address", "host_id", "cluster_id", "boot_id"):
        _check_length(f"register.{name}", getattr(register, name))
    _check_count("register.labels", len(register.labels), MOST_LABELS)
    for key, value in register.labels.items():
        _check_length("register.labels", key)
        _check_length(f"register.labels[{key[:40]}]", value)


def fit(snapshot: node_link_pb2.NodeSnapshot) -> list[str]:
    """Cuts what may be cut, and says what was: a sentence for each list. Raises InvalidArgument for all else."""
    _check_count("snapshot.devices", len(snapshot.devices), MOST_DEVICES)
    _check_count("snapshot.pools", len(snapshot.pools), MOST_DEVICES)
    _check_count("snapshot.workers", len(snapshot.workers), MOST_WORKERS)
    _check_count("snapshot.worker_activity", len(snapshot.worker_activity), MOST_WORKERS)
    told = [*_cut_processes(snapshot), *_cut_models(snapshot)]
    for device in snapshot.devices:
        _check_length("snapshot.devices.device_id", device.device_id)
        _check_size(f"snapshot.devices[{device.device_id}]", device, _LARGEST_DEVICE)
    for pool in snapshot.pools:
        _check_length("snapshot.pools.pool_id", pool.pool_id)
        _check_size(f"snapshot.pools[{pool.pool_id}]", pool, _LARGEST_DEVICE)
    for report in snapshot.workers:
        _check_length("snapshot.workers.worker_id", report.worker.spec.worker_id)
        _check_size(f"snapshot.workers[{report.worker.spec.worker_id}]", report, _LARGEST_WORKER)
    return told


def _cut_processes(snapshot: node_link_pb2.NodeSnapshot) -> Iterator[str]:
    for device in snapshot.devices:
        if (count := len(device.processes)) > MOST_PROCESSES:
            del device.processes[MOST_PROCESSES:]
            yield f"{count} programs hold memory of {device.device_id[:_LONGEST_NAME]}; {MOST_PROCESSES} are shown"


def _cut_models(snapshot: node_link_pb2.NodeSnapshot) -> Iterator[str]:
    models = snapshot.staged_models
    if (count := len(models)) > MOST_MODELS:
        del models[MOST_MODELS:]
        yield f"it has {count} model files; the first {MOST_MODELS} are known here"
    too_long = [number for number, model in enumerate(models) if model.ByteSize() > _LARGEST_MODEL]
    for number in reversed(too_long):
        del models[number]
    if too_long:
        yield f"{len(too_long)} of its model files have names of more than {_LARGEST_MODEL} bytes and are left out"


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise invalid_field(field, f"has {count} entries; at most {most} are taken")


def _check_length(field: str, text: str) -> None:
    if len(text) > _LONGEST_NAME:
        raise invalid_field(field, f"has {len(text)} characters; at most {_LONGEST_NAME} are taken")


def _check_size(field: str, entry: Message, most: int) -> None:
    if (size := entry.ByteSize()) > most:
        raise invalid_field(field, f"has {size} bytes; at most {most} are taken")
