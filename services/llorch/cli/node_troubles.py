"""What is wrong with machines, and what to do about it."""

from typing import TYPE_CHECKING

from llorch.cli.output import note_sentence

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2


def note_troubles(state: "fleet_service_pb2.State") -> None:
    for node in state.nodes:
        if node.trouble:
            note_sentence(f"{node.trouble[:1].upper()}{node.trouble[1:]}.")
