"""One task's events, as one stream, whatever happens to the connections that bring them."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

from llama_orch.v2 import task_event_pb2
from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unauthenticated, Unavailable
from llorch.rpc.pauses import Pauses
from llorch.rpc.status import has_broken
from llorch.sdk.answer import Answer, AnswerParts
from llorch.sdk.convert import event_from_message
from llorch.sdk.events import End, Event, Failed, Placed, Started, Tokens
from llorch.sdk.failures import TaskFailed
from llorch.sdk.reach import Reach

_TOLD_FIRST = ("started", "placed")
"""Of every connection, also of one that brings nothing new."""


class _Message(Protocol):
    @property
    def event(self) -> task_event_pb2.TaskEvent: ...


Messages = AbstractAsyncContextManager[AsyncIterator[_Message]]
OpenAgain = Callable[[str, str], Messages]
"""Opens a stream of a task (first argument) after a cursor (second)."""


class TaskStream(AsyncIterator[Event]):
    """Iterate over it or over `text()`, or wait for the whole `answer()`; leave it early with `aclose()` or as an
    async context manager.

    A connection that breaks is opened again after the last cursor, until `reconnect_for_s` have passed without an
    event that says something new; then the error is raised. What `begin` opens is repeated where the task's id is not
    known yet: it is the same request each time. A reader never sees an event twice, and never a second `Started`.
    `explain` says what an error means to the user of this client.

    Where the output of a task starts over, so does `answer()`, and so does this stream as long as it has given out no
    output; else InvalidArgument / STREAM_RESET is raised. `outlives`: the task goes on without its orchestrator. One
    that does not may be lost with it; then another one takes its place under the same condition, and else Unavailable /
    TASK_NOT_FOUND is raised.
    """

    # Not a generator: one that is dropped half-read is ended by the event loop at a time when what it holds may be
    # ended already.

    def __init__(
        self,
        begin: Callable[[], Messages],
        open_again: OpenAgain,
        explain: Callable[[LlorchError], LlorchError],
        reach: Reach,
        *,
        reconnect_for_s: float,
        outlives: bool = True,
        task_id: str = "",
        after: str = "",
    ) -> None:
        self._begin = begin
        self._messages: Messages | None = begin()
        self._incoming: AsyncIterator[_Message] | None = None
        self._open_again = open_again
        self._explain = explain
        self._reach = reach
        self._pauses = Pauses(reconnect_for_s)
        self._tell_waits: Callable[[bool], None] | None = None
        self._waits = False
        self._place: tuple[int, str] | None = None
        self._started = False
        self._finished = False
        self._outlives = outlives
        self._is_opened_again = False
        self._may_start_over = not after
        self._lives = 1
        self.task_id = task_id
        self.cursor = after

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            while self._messages is not None:
                try:
                    event = await self._next_event(self._messages)
                except Unauthenticated as error:
                    if not self._is_opened_again or error.reason is not Reason.TOKEN_MISSING:
                        raise self._explain(error) from error.__cause__
                    # An `llorch up` that begins keeps its token in a moment.
                    await self._reconnect(error, may_pass=True)
                except LlorchError as error:
                    await self._go_on_after(error)
                else:
                    if event is not None and self._is_news(event):
                        return event
        except BaseException:
            await self.aclose()
            raise
        raise StopAsyncIteration

    def when_it_waits(self, tell: Callable[[bool], None]) -> None:
        """`tell` is called with True when the connection has broken, and with False when something comes again, or when
        the stream is over.
        """
        self._tell_waits = tell

    async def aclose(self) -> None:
        """Stops reading. A task of `generate` is then cancelled by the orchestrator within seconds."""
        self._note_waits(False)
        await self._leave()

    async def _leave(self) -> None:
        messages, incoming = self._messages, self._incoming
        self._messages = self._incoming = None
        if messages is not None and incoming is not None:
            await messages.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def text(self) -> AsyncGenerator[str, None]:
        """The text of the first choice, as it comes. Raises TaskFailed if the task fails."""
        async for event in self:
            match event:
                case Tokens(choice=0, text=text) if text:
                    yield text
                case Failed():
                    raise _error_of(event)

    async def answer(self) -> Answer:
        """All that is still to come, put together. Raises TaskFailed if the task fails."""
        parts, life = AnswerParts(), self._lives
        is_whole = self._may_start_over
        async for event in self:
            self._may_start_over = is_whole  # what was read so far is given to no caller yet
            if isinstance(event, Failed):
                raise _error_of(event)
            if life != self._lives:
                parts, life = AnswerParts(), self._lives
            parts.add(event)
        return parts.whole()

    async def _next_event(self, messages: Messages) -> Event | None:
        """None for a message that is no event for users. Raises Unavailable where the stream ends, too."""
        if self._incoming is None:
            self._incoming = await messages.__aenter__()
        message = await anext(self._incoming, None)
        if message is None:
            raise Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the stream ended before its task did")
        self._reach.note_answer()
        self._note_waits(False)
        if self._pauses.over_at is not None and message.event.WhichOneof("event") not in _TOLD_FIRST:
            self._pauses.start_over()
        return event_from_message(message.event)

    async def _go_on_after(self, error: LlorchError) -> None:
        """Prepares the next connection, if one may help. Raises the error otherwise."""
        if isinstance(error, Unavailable | DeadlineExceeded) or has_broken(error):
            await self._reconnect(error)
        elif self._is_opened_again and error.reason is Reason.STREAM_RESET and self._may_start_over:
            self._start_over()
            await self._reconnect(error)
        elif self._is_opened_again and error.reason is Reason.TASK_NOT_FOUND and not self._outlives:
            if not self._may_start_over:
                raise _lost() from error
            self._start_over()
            self.task_id = ""
            await self._reconnect(error, may_pass=True)
        else:
            raise error

    def _start_over(self) -> None:
        self._lives += 1
        self._place = None
        self.cursor = ""

    async def _reconnect(self, broken: LlorchError, *, may_pass: bool = False) -> None:
        """Prepares the next connection; where the task has ended there is none."""
        await self._leave()
        if self._finished:
            return
        may_pass = may_pass or bool(self.task_id) or self._reach.may_pass(broken)
        self._note_waits(may_pass)
        if not may_pass or not await self._pauses.wait(broken.retry_after_ms):
            raise self._explain(broken) from broken
        self._is_opened_again = True
        self._messages = self._open_again(self.task_id, self.cursor) if self.task_id else self._begin()

    def _note_waits(self, waits: bool) -> None:
        if waits is not self._waits:
            self._waits = waits
            if self._tell_waits is not None:
                self._tell_waits(waits)

    def _is_news(self, event: Event) -> bool:
        """Takes note of an event, and tells whether the reader has not had it yet."""
        self.task_id = event.task_id
        match event:
            case Started():
                if self._started:
                    return False
                self._started = True
            case Placed(attempt=attempt, worker_id=worker_id):
                if self._place == (attempt, worker_id):
                    return False
                self._place = attempt, worker_id
            case Tokens():
                self._may_start_over = False
            case End() | Failed():
                self._finished = True
        self.cursor = event.cursor or self.cursor
        return True


def _error_of(failed: Failed) -> TaskFailed:
    return TaskFailed(failed.reason, failed.message, retryable=failed.retryable, retry_after_ms=failed.retry_after_ms)


def _lost() -> Unavailable:
    return Unavailable(
        Reason.TASK_NOT_FOUND,
        "the orchestrator has ended meanwhile, and with it this task, which was not submitted to outlive it; ask again",
    )
