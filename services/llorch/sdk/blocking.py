"""An `AsyncClient` on a thread of its own, and how its calls become calls that wait."""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from llorch.sdk.async_client import AsyncClient
from llorch.sdk.blocking_stream import SyncTaskStream, next_of
from llorch.sdk.task_stream import TaskStream

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Owns the event loop, its thread and the `AsyncClient` in it."""

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        reconnect_for_s: float = 30.0,
    ) -> None:
        self._client = AsyncClient(address, token, timeout_s=timeout_s, reconnect_for_s=reconnect_for_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llorch-client", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self._client.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends streams that are still open, the connection and the thread."""
        if self._loop.is_closed():
            return
        self._wait(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            # Ctrl-C ends the wait, not the work.
            future.cancel()

    def _iterated(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield next_of(self._wait, items.__anext__)
                except StopIteration:
                    return
        finally:
            self._wait(items.aclose())

    async def _shut_down(self) -> None:
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await asyncio.get_running_loop().shutdown_asyncgens()


def waits(call: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Blocking, P], T]:
    """The same call, which returns when the answer is there."""

    @functools.wraps(call)
    def wait(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(call(self._client, *args, **kwargs))

    return wait


def streams(
    call: Callable[Concatenate[AsyncClient, P], TaskStream],
) -> Callable[Concatenate[Blocking, P], SyncTaskStream]:
    """The same call, whose stream is a plain iterator."""

    @functools.wraps(call)
    def stream(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> SyncTaskStream:
        async def begin() -> TaskStream:
            return call(self._client, *args, **kwargs)

        return SyncTaskStream(self._wait(begin()), self._wait)

    return stream


def iterates(
    call: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Blocking, P], Iterator[T]]:
    """The same call as a plain iterator. Leaving the iteration ends the call."""

    @functools.wraps(call)
    def iterate(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._iterated(call(self._client, *args, **kwargs))

    return iterate
