"""The messages of a stream at its client, with a bound on its silence."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Self, TypeVar

import grpc

from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unavailable
from llorch.rpc.settled import Settled, end_call
from llorch.rpc.status import error_from_rpc

Response = TypeVar("Response")

# When our own loop stood still for longer, what the peer sent in the meantime has not been looked at yet.
_OWN_STALL_S = 1.0


class Incoming(Generic[Response]):
    """An async iterator over the messages of one call, for one task to read.

    With `idle_timeout_s` the call is cancelled, and DeadlineExceeded raised, when a message is waited for
    longer than that. One timer per stream looks how long the present read has been waiting, so that the
    single message costs nothing.
    """

    def __init__(self, rpc: Any, idle_timeout_s: float | None) -> None:
        self._rpc = rpc
        self._end = partial(end_call, rpc)
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_s = idle_timeout_s
        self._waiting_since: float | None = None
        self._gave_up = False
        self._ended_with: LlorchError | None = None
        self._timer: asyncio.TimerHandle | None = None
        if idle_timeout_s is not None:
            self._look_in(idle_timeout_s, idle_timeout_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        self._waiting_since = self._loop.time()
        try:
            message: Response = await Settled(self._rpc.read(), self._end)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            raise self._why_it_ended() from None
        finally:
            self._waiting_since = None
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    def when_broken(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once the call has ended, whether its messages were read or not; also where it ended in order, as
        the library does not say how at that time.
        """
        self._rpc.add_done_callback(lambda _: tell())

    def end(self, error: LlorchError) -> None:
        """Cancels the call; who reads it gets this error."""
        self._ended_with = error
        self._end()

    def stop_watching(self) -> None:
        """The owner of the call has to call this when it reads no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, seconds: float, idle_timeout_s: float) -> None:
        due = self._loop.time() + seconds
        self._timer = self._loop.call_at(due, self._look, due, idle_timeout_s)

    def _look(self, due: float, idle_timeout_s: float) -> None:
        now = self._loop.time()
        if self._waiting_since is None or now - due > _OWN_STALL_S:
            self._look_in(idle_timeout_s, idle_timeout_s)
            return
        left = self._waiting_since + idle_timeout_s - now
        if left > 0:
            self._look_in(left, idle_timeout_s)
        else:
            self._gave_up = True
            self._end()

    def _why_it_ended(self) -> LlorchError:
        if self._ended_with is not None:
            return self._ended_with
        if self._gave_up:
            return DeadlineExceeded(Reason.DEADLINE_PASSED, f"nothing came for {self._idle_timeout_s:g} s")
        return ended_by_peer()


def is_being_cancelled() -> bool:
    """Tells a cancellation of this task from the one that grpc.aio raises when the *call* was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def ended_by_peer() -> Unavailable:
    return Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the other side ended the call")
