"""Headers of commands: which orchestrator commands, and in which order."""

from llama_orch.v2 import control_pb2
from orchestratord.store.interface import Incarnation


class CommandSequence:
    """Numbers the commands of this orchestrator to one receiver, from 1."""

    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self._last = 0

    def next(self) -> control_pb2.ControlHeader:
        self._last += 1
        return control_pb2.ControlHeader(
            cluster_id=self._incarnation.cluster_id,
            control_epoch=self._incarnation.control_epoch,
            command_seq=self._last,
        )
