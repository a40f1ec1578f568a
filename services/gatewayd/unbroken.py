"""A task as one stream, whatever becomes of the connections that bring it (docs/adr/0040-unbroken-streams.md)."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from gatewayd.told import Told, View
from llama_orch.v2 import task_service_pb2
from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unavailable
from llorch.logs import get_logger
from llorch.rpc.incoming import ended_by_peer
from llorch.rpc.pauses import Pauses
from llorch.rpc.status import has_broken, is_from_server, never_left

_MOST_KEPT_BYTES = 64 * 1024
"""Of a broken connection, for a client that lags. What is beyond it is read again."""

_RETRY_WHEN_LOST_MS = 1000
_PASSES = (Reason.RECOVERING, Reason.DRAINING, Reason.TOO_MANY_CALLS, Reason.STORE_FAILED)

_log = get_logger("gatewayd")

TaskRequest = task_service_pb2.GenerateRequest | task_service_pb2.StreamTaskRequest


class Attachment(Protocol):
    """The events of a task over one connection."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Any: ...

    def when_broken(self, tell: Callable[[], None]) -> None:
        """`tell` is called once nothing more comes, whether what has come was read or not."""
        ...

    def end(self, error: LlorchError) -> None: ...


Attach = Callable[[TaskRequest], AbstractAsyncContextManager[Attachment]]


class UnbrokenTask:
    """To be entered, and then read by one task; leaving the block ends it.

    Where a connection breaks, the stream is attached again after the last event that was handed on, at once and also
    while its client takes nothing: the orchestrator soon cancels what nothing reads. Once `within_s` have passed
    without an event that says something new, the error is raised. A first call that has reached no orchestrator is not
    repeated.
    """

    def __init__(self, attach: Attach, request: TaskRequest, view: View, within_s: float) -> None:
        self._attach = attach
        self._first = request
        self._told = Told(view, request.after if isinstance(request, task_service_pb2.StreamTaskRequest) else "")
        self._may_be_lost = isinstance(request, task_service_pb2.GenerateRequest)
        self._pauses = Pauses(within_s)
        self._has_reached = False
        self._stack = AsyncExitStack()
        self._incoming: Attachment | None = None
        self._attachments = 0
        self._is_reading = False
        self._kept: deque[Any] = deque()
        self._kept_bytes = 0
        self._mending: asyncio.Task[None] | None = None
        self._ended_with: LlorchError | None = None

    @property
    def lives(self) -> int:
        """One more each time that the output begins anew; what was read of it before is not true any more."""
        return self._told.lives

    async def __aenter__(self) -> Self:
        try:
            try:
                await self._open(self._first)
            except LlorchError as error:
                self._begin_to_mend(error)
                await self._wait_mended()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while True:
            if self._kept:
                kept = self._kept.popleft()
                self._kept_bytes -= kept.event.ByteSize()
                return kept
            if self._mending is not None:
                await self._wait_mended()
                continue
            if self._incoming is None:
                raise StopAsyncIteration
            self._is_reading = True
            try:
                response = await self._incoming.__anext__()
            except LlorchError as error:
                if self._ended_with is not None:
                    raise
                self._begin_to_mend(error)
                continue
            finally:
                self._is_reading = False
            if self._is_news(response.event):
                return response

    def end(self, error: LlorchError) -> None:
        """Who reads it gets this error, after what has come. Nothing is attached again."""
        self._ended_with = error
        if self._mending is not None and not self._mending.done():
            self._mending.cancel()
        elif self._incoming is not None:
            self._incoming.end(error)

    async def _open(self, request: TaskRequest) -> Attachment:
        incoming = await self._stack.enter_async_context(self._attach(request))
        self._incoming = incoming
        self._attachments += 1
        incoming.when_broken(partial(self._hear_broken, self._attachments))
        return incoming

    async def _leave(self) -> None:
        stack, self._stack, self._incoming = self._stack, AsyncExitStack(), None
        await stack.aclose()

    async def _close(self) -> None:
        self._ended_with = self._ended_with or ended_by_peer()
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait({self._mending})
            if not self._mending.cancelled():
                self._mending.exception()  # its reader has left
        await self._leave()

    def _is_news(self, event: Any) -> bool:
        is_news = self._told.note(event)
        self._has_reached = True
        if self._pauses.over_at is not None and not (event.HasField("started") or event.HasField("placed")):
            self._pauses.start_over()
        return is_news

    def _hear_broken(self, number: int) -> None:
        """The attachment of this number. Its reader finds out by itself; but while the client takes nothing there is
        none.
        """
        incoming = self._incoming
        if number != self._attachments or incoming is None or self._is_reading or self._ended_with is not None:
            return
        if self._mending is not None and not self._mending.done():
            self._mending.add_done_callback(lambda _: self._hear_broken(number))
        else:
            self._mending = asyncio.create_task(self._take_rest(incoming), name="rest of a broken stream")

    def _begin_to_mend(self, error: LlorchError) -> None:
        self._mending = asyncio.create_task(self._mend(error), name="mend a stream")

    async def _wait_mended(self) -> None:
        """Raises why it could not be."""
        mending = self._mending
        if mending is None:
            return
        await asyncio.wait({mending})
        if self._mending is mending:
            self._mending = None
        if mending.cancelled() and self._ended_with is not None:
            raise self._ended_with
        mending.result()

    async def _take_rest(self, broken: Attachment) -> None:
        """What has come is the client's, the end among it, which no other connection may bring again."""
        try:
            while self._kept_bytes < _MOST_KEPT_BYTES:
                self._keep(await broken.__anext__())
        except StopAsyncIteration:
            await self._leave()
        except LlorchError as error:
            await self._mend(error)
        else:
            await self._mend(ended_by_peer())

    def _keep(self, response: Any) -> None:
        if self._is_news(response.event):
            self._kept.append(response)
            self._kept_bytes += response.event.ByteSize()

    async def _mend(self, error: LlorchError) -> None:
        """Attaches again, until something comes. Raises what it can't mend, or could not within its time."""
        await self._leave()
        while not self._told.is_over:
            request = self._request_after(error)
            if not await self._pauses.wait(error.retry_after_ms):
                raise error
            try:
                async with asyncio.timeout_at(self._pauses.over_at):
                    first = await anext(await self._open(request), None)
            except TimeoutError:
                await self._leave()
            except LlorchError as again:
                await self._leave()
                error = again
            else:
                if first is None:
                    await self._leave()
                else:
                    self._keep(first)
                    _log.info("stream_attached_again", task_id=self._told.task_id, reason=error.reason.value)
                return

    def _request_after(self, error: LlorchError) -> TaskRequest:
        """What may help. Raises the error where nothing does."""
        told = self._told
        if error.reason is Reason.STREAM_RESET and told.may_start_over:
            told.start_over()
        elif error.reason is Reason.TASK_NOT_FOUND and self._may_be_lost:
            if not told.may_be_another:
                raise _lost() from error
            told.become_another()
        elif not self._may_pass(error):
            raise error
        self._has_reached = True
        if not told.task_id:
            return self._first
        return task_service_pb2.StreamTaskRequest(task_id=told.task_id, after=told.cursor)

    def _may_pass(self, error: LlorchError) -> bool:
        """Whether the next attempt may fare better. As an answer to the first one, a refusal is for the client."""
        if error.reason is Reason.RECOVERING:
            return True
        if not self._has_reached and (isinstance(error, DeadlineExceeded) or never_left(error)):
            return False
        if has_broken(error) or isinstance(error, DeadlineExceeded):
            return True
        if self._has_reached and error.reason in _PASSES:
            return True
        return error.reason is Reason.UPSTREAM_UNAVAILABLE and not is_from_server(error)


def _lost() -> Unavailable:
    return Unavailable(
        Reason.UPSTREAM_UNAVAILABLE,
        "the orchestrator has ended meanwhile, and with it this task, which was not submitted to outlive it; ask again",
        retry_after_ms=_RETRY_WHEN_LOST_MS,
    )
