"""A message of a client against the table of its options."""

from google.protobuf.message import Message

from llorch.options.checking import check_said
from llorch.options.option import Table


def check_options(path: str, table: Table, message: Message) -> None:
    """Raises InvalidArgument that names the first field that can't be right. What is absent can be."""
    check_said(path, table, {field.name: value for field, value in message.ListFields()})
