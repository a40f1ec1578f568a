"""What the gateway and its orchestrator say to each other over one delivery."""

import asyncio
from itertools import count, islice

from gatewayd.task_events import TaskEvents
from llama_orch.v2 import delivery_service_pb2
from llorch.errors import LlorchError

_MOST_AT_ONCE = 4096
"""Entries of each list in one request, as the contract has it."""


class Delivery:
    """The readers of one delivery, and what the orchestrator is to be told of them."""

    def __init__(self) -> None:
        self.delivery_id = ""
        self.is_ending = False
        """The orchestrator takes no further reader, and is told nothing more."""
        self._began = asyncio.Event()
        self._ended_with: LlorchError | None = None
        self._numbers = count(1)
        self._readers: dict[int, TaskEvents] = {}
        self._left: list[int] = []
        self._taken: dict[int, int] = {}
        self._news = asyncio.Event()

    async def enter(self) -> tuple[int, TaskEvents]:
        """A reader, and its number; it is to leave. Raises what ended the delivery before it began."""
        await self._began.wait()
        if self._ended_with is not None:
            raise _again(self._ended_with)
        number = next(self._numbers)
        reader = self._readers[number] = TaskEvents(lambda size: self._tell_taken(number, size))
        return number, reader

    def leave(self, number: int) -> None:
        """The orchestrator is told, unless it has told the reader that nothing follows."""
        if self._readers.pop(number, None) is not None:
            self._tell_left(number)

    def hand_out(self, response: delivery_service_pb2.DeliverResponse) -> None:
        if response.ends:
            self.is_ending = True
            self._news.set()
        if response.delivery_id:
            self.delivery_id = response.delivery_id
            self._began.set()
        for delivered in response.delivered:
            reader = self._readers.get(delivered.reader)
            if reader is not None:
                reader.bring(delivered)
                if delivered.is_last:
                    del self._readers[delivered.reader]
            elif not delivered.is_last:
                # It left while it was being attached, and the orchestrator heard the one before the other.
                self._tell_left(delivered.reader)

    def end(self, error: LlorchError) -> None:
        """The call is over. Each reader gets an error of its own, since raising one changes it."""
        self._ended_with = error
        self._began.set()
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.end(_again(error))

    async def to_tell(self) -> delivery_service_pb2.DeliverRequest | None:
        """What has gathered, once there is something; None once nothing more is to be told."""
        await self._news.wait()
        if self.is_ending:
            return None
        left, self._left = self._left[:_MOST_AT_ONCE], self._left[_MOST_AT_ONCE:]
        taken = [(number, self._taken.pop(number)) for number in tuple(islice(self._taken, _MOST_AT_ONCE))]
        if not self._left and not self._taken:
            self._news.clear()
        return delivery_service_pb2.DeliverRequest(
            left=left, taken=[delivery_service_pb2.Taken(reader=number, bytes=size) for number, size in taken]
        )

    def _tell_left(self, number: int) -> None:
        self._taken.pop(number, None)
        self._left.append(number)
        self._news.set()

    def _tell_taken(self, number: int, size: int) -> None:
        if number in self._readers:
            self._taken[number] = self._taken.get(number, 0) + size
            self._news.set()


def _again(error: LlorchError) -> LlorchError:
    again = type(error)(
        error.reason,
        error.message,
        violations=error.violations,
        retry_after_ms=error.retry_after_ms,
        metadata=error.metadata,
    )
    again.__cause__ = error.__cause__
    return again
