"""Between `WorkerSpec` and the contract's."""

from math import inf

from llama_orch.v2 import worker_pb2
from llorch.errors import invalid_field
from llorch.identifiers import check_id
from llorch.options.checking import check_said, check_value
from llorch.options.model import MODEL, LoadOptions
from llorch.options.option import values_of
from llorch.rpc.enum_tables import CACHE_TYPES
from llorch.rpc.mirror import Mirror
from llorch.worker_spec import WorkerSpec

_SPECS = Mirror(WorkerSpec, worker_pb2.WorkerSpec, enums=[CACHE_TYPES], unused={"adapters"})


def to_proto(spec: WorkerSpec) -> worker_pb2.WorkerSpec:
    return _SPECS.to_proto(spec)


def from_report(message: worker_pb2.WorkerSpec) -> WorkerSpec:
    """From a node's report, unchecked: values of a newer release that are not known are left at their defaults."""
    return _SPECS.from_proto(message)


def from_command(message: worker_pb2.WorkerSpec) -> WorkerSpec:
    """Raises `InvalidArgument` naming the first field that can't be right."""
    _require(not message.adapters, "adapters", "adapters are not supported by this release")
    _SPECS.refuse_unknown(message, "spec")
    spec = _SPECS.from_proto(message)
    _check_names(spec)
    _check_numbers(spec)
    return spec


def _check_names(spec: WorkerSpec) -> None:
    check_id(spec.worker_id, "spec.worker_id")
    _require(bool(spec.model), "model", "name the model")
    _require(bool(spec.source), "source", "name the model's file")
    _require(bool(spec.device_ids), "device_ids", "name at least one device")


def _check_numbers(spec: WorkerSpec) -> None:
    devices, reserved, shares = len(spec.device_ids), len(spec.reservation_mib), spec.tensor_split
    said = {name: value for name, value in values_of(LoadOptions, spec).items() if value not in (None, "")}
    check_said("spec", MODEL, {**said, "slots": spec.slots})
    check_value("spec.context_per_slot", MODEL["context"], spec.context_per_slot)
    _require(len(shares) in (0, devices), "tensor_split", f"one value per device ({devices}), not {len(shares)}")
    _require(
        not shares or (all(0 <= share < inf for share in shares) and sum(shares) > 0),
        "tensor_split",
        "shares are numbers from 0, and not all of them 0",
    )
    _require(reserved in (0, devices), "reservation_mib", f"one value per device ({devices}), not {reserved}")


def _require(condition: bool, field: str, description: str) -> None:
    if not condition:
        raise invalid_field(f"spec.{field}", description)
