"""The requests of calls that were let in, until they are there: for a while, and of a bounded number of calls."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

from llorch.errors import DeadlineExceeded, InvalidArgument, LlorchError, Reason, ResourceExhausted
from llorch.rpc.places import Tasks
from llorch.rpc.settled import Settled

Refuse = Callable[[Any, LlorchError], Awaitable[NoReturn]]
"""Ends the call of a context with a status."""

# They come with their calls; this is for the largest ones, over a slow line.
_WITHIN_S = 10.0
_RETRY_MS = 1000


class AwaitedRequests:
    """Beyond `most` the one that has been awaited for the longest time gives way: a client that sends its requests
    can't be kept from a server by those that do not.
    """

    def __init__(self, most: int, refuse: Refuse) -> None:
        self._most = most
        self._refuse = refuse
        self._awaited: dict[_Awaited, None] = {}

    async def read(self, context: Any) -> Any:
        """The message of a call with one request, as it was sent. Raises what the call was refused with, or why it is
        malformed.
        """
        if len(self._awaited) >= self._most:
            self._give_up(next(iter(self._awaited)), _others_wait())
        awaited = _Awaited(context)
        self._awaited[awaited] = None
        late = asyncio.get_running_loop().call_later(_WITHIN_S, self._give_up, awaited, _late())
        try:
            request = await Settled(context.read())
        finally:
            late.cancel()
            self._awaited.pop(awaited, None)
            if awaited.refusing is not None:
                await awaited.refusing
        if request is grpc.aio.EOF:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "the call has no request; send one message with it")
        return request

    def give_up_all(self, error: LlorchError) -> Tasks:
        """Refuses all of them; the tasks that serve the calls."""
        awaited = list(self._awaited)
        for each in awaited:
            self._give_up(each, error)
        return {each.task for each in awaited}

    def _give_up(self, awaited: "_Awaited", error: LlorchError) -> None:
        """The status ends the call, and with it the read. A read that is cancelled instead leaves memory behind."""
        if awaited.refusing is not None:
            return
        del self._awaited[awaited]
        awaited.refusing = asyncio.ensure_future(self._refuse(awaited.context, error))


class _Awaited:
    def __init__(self, context: Any) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        self.context = context
        self.task: asyncio.Task[Any] = task
        self.refusing: asyncio.Future[Any] | None = None


def _late() -> DeadlineExceeded:
    return DeadlineExceeded(
        Reason.DEADLINE_PASSED, f"the request did not come within {_WITHIN_S:g} s; send it with the call"
    )


def _others_wait() -> ResourceExhausted:
    return ResourceExhausted(
        Reason.TOO_MANY_CALLS,
        "the request did not come, and this server awaits those of too many calls; send it with the call",
        retry_after_ms=_RETRY_MS,
    )
