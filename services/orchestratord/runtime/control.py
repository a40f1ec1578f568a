"""Headers of commands: which orchestrator commands, and in which order."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from llama_orch.v2 import control_pb2
from llorch.errors import FailedPrecondition
from orchestratord.runtime.authority import Authority

_TRIES = 3

Answer = TypeVar("Answer")


class CommandSequence:
    """Numbers the commands of this orchestrator to one receiver, from 1, through all epochs that it has.

    `node_id` tells the node of the receiver: if it is linked, its word and that of its workers raises the epoch.
    `last` is the number after which they begin.
    """

    def __init__(self, authority: Authority, node_id: Callable[[], str], last: int = 0) -> None:
        self._authority = authority
        self._node_id = node_id
        self._last = last

    @property
    def cluster_id(self) -> str:
        return self._authority.cluster_id

    @property
    def last(self) -> int:
        return self._last

    def next(self) -> control_pb2.ControlHeader:
        self._last += 1
        return control_pb2.ControlHeader(
            cluster_id=self._authority.cluster_id,
            control_epoch=self._authority.control_epoch,
            command_seq=self._last,
        )

    def known_from(self, control: control_pb2.ControlHeader) -> int:
        """The number from which on the receiver's reports know of a command that it has answered.

        A receiver that takes note of a higher epoch forgets which commands of the lower one it still carries out. So a
        command whose answer came after the epoch had risen is known for sure only to reports that know a later one.
        """
        return control.command_seq if control.control_epoch == self._authority.control_epoch else self._last + 1

    async def command(self, send: Callable[[control_pb2.ControlHeader], Awaitable[Answer]]) -> Answer:
        """Sends a command; again with a higher epoch where its receiver has seen a later one of this cluster."""
        for _ in range(_TRIES - 1):
            control = self.next()
            try:
                return await send(control)
            except FailedPrecondition as error:
                if not await self.overcome(control, error):
                    raise
        return await send(self.next())

    async def overcome(self, control: control_pb2.ControlHeader, refusal: FailedPrecondition) -> bool:
        """Whether the command that was refused can be sent again, with a higher epoch."""
        return await self._authority.overcome(self._node_id(), control.control_epoch, refusal)
