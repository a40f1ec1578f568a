"""What passes our check, protobuf's mapping takes: nothing that a client sends ends in an internal error."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.message_shape import check_message
from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument
from support.example_count import examples

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1", "-1", "1e3", "NaN", "Infinity", " 1", "1_0", "4294967296", "aGk=", "a-_", "٣"]),
)


def _values(message: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    """Objects with real field names and values that fit about half of the time."""

    def of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
        single = SCALARS
        if field.message_type is not None and depth > 0:
            single = st.one_of(_values(field.message_type, depth - 1), SCALARS)
        return st.one_of(st.lists(single, max_size=2), single) if field.is_repeated else single

    return st.fixed_dictionaries({}, optional={field.name: of(field) for field in message.fields})


@settings(max_examples=examples(400))
@given(_values(task_pb2.TaskSpec.DESCRIPTOR, 3))
def test_what_passes_is_taken(value: Any) -> None:
    try:
        check_message(value, task_pb2.TaskSpec.DESCRIPTOR)
    except InvalidArgument:
        return
    json_format.ParseDict(value, task_pb2.TaskSpec())
