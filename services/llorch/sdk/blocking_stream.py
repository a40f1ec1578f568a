"""A task's stream for programs without an event loop."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from llorch.sdk.answer import Answer
from llorch.sdk.events import Event
from llorch.sdk.task_stream import TaskStream

T = TypeVar("T")


class SyncTaskStream(Iterator[Event]):
    """`TaskStream` as a plain iterator; leave it early with `close()` or as a context manager."""

    def __init__(self, stream: TaskStream, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream = stream
        self._wait = wait

    @property
    def task_id(self) -> str:
        """Empty until the first event."""
        return self._stream.task_id

    @property
    def cursor(self) -> str:
        return self._stream.cursor

    def __next__(self) -> Event:
        return next_of(self._wait, self._stream.__anext__)

    def text(self) -> Iterator[str]:
        pieces = self._stream.text()
        while True:
            try:
                yield next_of(self._wait, pieces.__anext__)
            except StopIteration:
                return

    def answer(self) -> Answer:
        answer: Answer = self._wait(self._stream.answer())
        return answer

    def when_it_waits(self, tell: Callable[[bool], None]) -> None:
        """As `TaskStream.when_it_waits`; `tell` is called in the client's own thread."""
        self._stream.when_it_waits(tell)

    def close(self) -> None:
        self._wait(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def next_of(wait: Callable[[Coroutine[Any, Any, Any]], Any], pull: Callable[[], Awaitable[T]]) -> T:
    """What comes next, or StopIteration."""

    async def pull_inside() -> tuple[bool, T | None]:
        try:
            return True, await pull()
        except StopAsyncIteration:
            return False, None

    more, value = wait(pull_inside())
    if not more:
        raise StopIteration
    return value  # type: ignore[no-any-return]  # `wait` is generic, an argument is not
