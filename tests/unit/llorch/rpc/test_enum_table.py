"""Enums of ours beside those of the contract."""

from enum import StrEnum

import pytest

from llama_orch.v2 import device_pb2, error_reason_pb2
from llorch.errors import InvalidArgument, Reason
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.reasons import reason_of_proto, reason_to_proto

NEWER = 9999


class State(StrEnum):
    OK = "ok"
    LOST = "lost"


STATES = EnumTable(State, device_pb2.DeviceState, unused={"RELEASED"})


@pytest.mark.parametrize(
    ("state", "value"), [(State.OK, device_pb2.DEVICE_STATE_OK), (State.LOST, device_pb2.DEVICE_STATE_LOST)]
)
def test_members_are_the_values_of_the_same_names(state: State, value: int) -> None:
    assert STATES.to_proto(state) == value
    assert STATES.find(value) is STATES.from_proto(value, "state") is state


@pytest.mark.parametrize("value", [device_pb2.DEVICE_STATE_UNSPECIFIED, device_pb2.DEVICE_STATE_RELEASED, NEWER])
def test_a_value_without_a_member_is_not_found_and_refused_with_those_that_are(value: int) -> None:
    assert STATES.find(value) is None
    with pytest.raises(InvalidArgument) as refused:
        STATES.from_proto(value, "device.state")
    assert refused.value.message == "device.state: has to be DEVICE_STATE_OK or DEVICE_STATE_LOST"


@pytest.mark.parametrize("unused", [(), ("RELEASED", "MOVED")])
def test_names_that_differ_from_the_contract_are_refused_at_once(unused: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="State differs"):
        EnumTable(State, device_pb2.DeviceState, unused=unused)


def test_every_reason_comes_back_and_unknown_ones_are_internal() -> None:
    assert [reason_of_proto(reason_to_proto(reason)) for reason in Reason] == list(Reason)
    assert reason_of_proto(error_reason_pb2.ERROR_REASON_UNSPECIFIED) is Reason.INTERNAL
    assert reason_of_proto(NEWER) is Reason.INTERNAL
