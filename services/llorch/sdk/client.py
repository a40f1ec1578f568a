"""`llorch.Client`: the same API for programs without an event loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from llama_orch.v2 import catalog_service_pb2, fleet_service_pb2, model_pb2, task_pb2
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.events import Event
from llorch.sdk.task_spec import GenerateOptions, Prompt
from llorch.sdk.task_stream import TaskStream

T = TypeVar("T")


class Client:
    """`AsyncClient` on a thread of its own; a context manager, or `close()` it. Any thread may call it.

    Arguments, errors and results are those of `AsyncClient`; streams are plain iterators.
    """

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

    def generate(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> "SyncTaskStream":
        return self._stream(lambda: self._client.generate(model, prompt, **options))

    def submit(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> str:
        return self._wait(self._client.submit(model, prompt, **options))

    def stream(self, task_id: str, *, after: str = "") -> "SyncTaskStream":
        return self._stream(lambda: self._client.stream(task_id, after=after))

    def cancel(self, task_id: str) -> bool:
        return self._wait(self._client.cancel(task_id))

    def tasks(self, state: "task_pb2.TaskState.ValueType" = task_pb2.TASK_STATE_UNSPECIFIED) -> list[task_pb2.Task]:
        return self._wait(self._client.tasks(state))

    def models(self) -> list[model_pb2.Model]:
        return self._wait(self._client.models())

    def model(self, name: str) -> model_pb2.Model:
        return self._wait(self._client.model(name))

    def register_model(self, name: str, source: str, **settings: Any) -> model_pb2.Model:
        return self._wait(self._client.register_model(name, source, **settings))

    def delete_model(self, name: str) -> None:
        self._wait(self._client.delete_model(name))

    def retire_model(self, name: str) -> model_pb2.Model:
        return self._wait(self._client.retire_model(name))

    def activate_model(self, name: str) -> model_pb2.Model:
        return self._wait(self._client.activate_model(name))

    def verify_model(self, name: str) -> list[catalog_service_pb2.NodeVerification]:
        return self._wait(self._client.verify_model(name))

    def state(self) -> fleet_service_pb2.State:
        return self._wait(self._client.state())

    def _stream(self, begin: Callable[[], TaskStream]) -> "SyncTaskStream":
        async def begin_inside() -> TaskStream:
            return begin()

        return SyncTaskStream(self._wait(begin_inside()), self._wait)

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

    async def _shut_down(self) -> None:
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await asyncio.get_running_loop().shutdown_asyncgens()


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
        return self._next(self._stream.__anext__)  # type: ignore[no-any-return]  # `wait` is generic, a field is not

    def text(self) -> Iterator[str]:
        pieces = self._stream.text()
        while True:
            try:
                yield self._next(pieces.__anext__)
            except StopIteration:
                return

    def close(self) -> None:
        self._wait(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, pull: Callable[[], Awaitable[Any]]) -> Any:
        async def pull_inside() -> Any:
            try:
                return True, await pull()
            except StopAsyncIteration:
                return False, None

        more, value = self._wait(pull_inside())
        if not more:
            raise StopIteration
        return value
