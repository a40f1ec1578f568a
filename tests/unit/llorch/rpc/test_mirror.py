"""Dataclasses and messages that have the same fields."""

from dataclasses import dataclass

import pytest

from llama_orch.v2 import device_pb2, worker_pb2
from llorch.device_kind import DeviceKind
from llorch.rpc.enum_tables import DEVICE_KINDS
from llorch.rpc.mirror import Mirror


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    memory_mib: int | None
    worker_id: str = ""


@dataclass(frozen=True)
class Owner:
    processes: tuple[Process, ...]
    kind: DeviceKind = DeviceKind.CPU


PROCESSES = Mirror(Process, device_pb2.DeviceProcess)
OF_OWNER = {"processes", "kind"}
OTHERS = set(device_pb2.Device.DESCRIPTOR.fields_by_name) - OF_OWNER


@pytest.mark.parametrize("memory_mib", [None, 0, 12])
def test_an_optional_value_that_is_not_told_is_none(memory_mib: int | None) -> None:
    process = Process(7, "python", memory_mib)
    message = PROCESSES.to_proto(process)
    assert message.HasField("memory_mib") is (memory_mib is not None)
    assert PROCESSES.from_proto(message) == process


def test_lists_of_messages_and_enums_are_carried_over() -> None:
    owners = Mirror(Owner, device_pb2.Device, enums=[DEVICE_KINDS], parts={"processes": PROCESSES}, unused=OTHERS)
    owner = Owner((Process(1, "a", None), Process(2, "b", 3)), DeviceKind.CUDA)
    assert owners.from_proto(owners.to_proto(owner)) == owner
    assert owners.from_proto(device_pb2.Device()) == Owner((), DeviceKind.CPU)


@pytest.mark.parametrize("unused", [set(), {"exit_code"}, {*worker_pb2.WorkerExit.DESCRIPTOR.fields_by_name}])
def test_fields_that_differ_are_refused_at_once(unused: set[str]) -> None:
    with pytest.raises(ValueError, match="differ"):
        Mirror(Process, worker_pb2.WorkerExit, unused=unused)


def test_an_enum_without_a_table_and_a_message_without_a_mirror_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"Owner\.kind needs the table"):
        Mirror(Owner, device_pb2.Device, parts={"processes": PROCESSES}, unused=OTHERS)
    with pytest.raises(ValueError, match=r"Owner\.processes needs .* the mirror"):
        Mirror(Owner, device_pb2.Device, enums=[DEVICE_KINDS], unused=OTHERS)


def test_an_enum_without_a_default_is_refused_at_once() -> None:
    @dataclass(frozen=True)
    class Bare:
        kind: DeviceKind

    with pytest.raises(ValueError, match="needs a default"):
        Mirror(Bare, device_pb2.Device, enums=[DEVICE_KINDS], unused=OTHERS | {"processes"})
