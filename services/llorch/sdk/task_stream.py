"""One task's events, as one stream, whatever happens to the connections that bring them."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

from llama_orch.v2 import task_event_pb2
from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unauthenticated, Unavailable
from llorch.rpc.status import has_broken
from llorch.sdk.answer import Answer, AnswerParts
from llorch.sdk.convert import event_from_message
from llorch.sdk.events import End, Event, Failed, Placed, Started, Tokens
from llorch.sdk.failures import TaskFailed

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


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
    event; then the error is raised. It is raised at once where the task's id is not known yet. A reader never sees
    an event twice, and never a second `Started`. `explain` says what an error means to the user of this client.

    A task that ran when its orchestrator ended starts over with the next one: so does `answer()`, and so does this
    stream as long as it has given out no output; else InvalidArgument / STREAM_RESET is raised. `outlives`: the task
    goes on without its orchestrator; one that does not is lost with it, which raises Unavailable / TASK_NOT_FOUND.
    """

    # Not a generator: one that is dropped half-read is ended by the event loop at a time when what it holds may be
    # ended already.

    def __init__(
        self,
        first: Messages,
        open_again: OpenAgain,
        explain: Callable[[LlorchError], LlorchError],
        *,
        reconnect_for_s: float,
        outlives: bool = True,
        task_id: str = "",
        after: str = "",
    ) -> None:
        self._messages: Messages | None = first
        self._incoming: AsyncIterator[_Message] | None = None
        self._open_again = open_again
        self._explain = explain
        self._pauses = _Pauses(reconnect_for_s)
        self._attempts_seen: set[int] = set()
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
                    await self._reconnect(error)  # an `llorch up` that begins keeps its token in a moment
                except LlorchError as error:
                    await self._go_on_after(error)
                else:
                    if event is not None and self._is_news(event):
                        return event
        except BaseException:
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stops reading. A task of `generate` is then cancelled by the orchestrator within seconds."""
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
        self._pauses.start_over()
        return event_from_message(message.event)

    async def _go_on_after(self, error: LlorchError) -> None:
        """Prepares the next connection, if one may help. Raises the error otherwise."""
        if isinstance(error, Unavailable | DeadlineExceeded) or has_broken(error):
            await self._reconnect(error)
        elif self._is_opened_again and error.reason is Reason.STREAM_RESET and self._may_start_over:
            await self.aclose()
            self._lives += 1
            self._attempts_seen.clear()
            self._open("")
        elif self._is_opened_again and error.reason is Reason.TASK_NOT_FOUND and not self._outlives:
            raise _lost() from error
        else:
            raise error

    async def _reconnect(self, broken: LlorchError) -> None:
        """Prepares the next connection; where the task has ended there is none."""
        await self.aclose()
        if self._finished:
            return
        if not self.task_id or not await self._pauses.wait():
            raise self._explain(broken) from broken
        self._open(self.cursor)

    def _open(self, after: str) -> None:
        self._is_opened_again = True
        self._messages = self._open_again(self.task_id, after)

    def _is_news(self, event: Event) -> bool:
        """Takes note of an event, and tells whether the reader has not had it yet."""
        self.task_id = event.task_id
        self.cursor = event.cursor or self.cursor
        match event:
            case Started():
                first, self._started = not self._started, True
                return first
            case Placed(attempt=attempt):
                first = attempt not in self._attempts_seen
                self._attempts_seen.add(attempt)
                return first
            case Tokens():
                self._may_start_over = False
            case End() | Failed():
                self._finished = True
        return True


def _error_of(failed: Failed) -> TaskFailed:
    return TaskFailed(failed.reason, failed.message, retryable=failed.retryable, retry_after_ms=failed.retry_after_ms)


def _lost() -> Unavailable:
    return Unavailable(
        Reason.TASK_NOT_FOUND,
        "the orchestrator has ended meanwhile, and with it this task, which was not submitted to outlive it; ask again",
    )


class _Pauses:
    """Between attempts to connect: longer each time, never the same for two clients, bounded in sum."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._next_s = _FIRST_PAUSE_S
        self._broken_since: float | None = None

    def start_over(self) -> None:
        self._next_s = _FIRST_PAUSE_S
        self._broken_since = None

    async def wait(self) -> bool:
        """False when the time is over."""
        now = asyncio.get_running_loop().time()
        if self._broken_since is None:
            self._broken_since = now
        if now - self._broken_since >= self._within_s:
            return False
        await asyncio.sleep(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311  # no secret depends on it
        self._next_s = min(self._next_s * 2, _LONGEST_PAUSE_S)
        return True
