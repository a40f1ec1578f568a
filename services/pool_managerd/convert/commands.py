"""Control headers: which orchestrator commands, and in which order."""

from llama_orch.v2 import control_pb2
from pool_managerd.control import CommandHeader


def to_command_header(message: control_pb2.ControlHeader) -> CommandHeader:
    return CommandHeader(message.cluster_id, message.control_epoch, message.command_seq)
