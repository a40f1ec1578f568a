"""`llorch.Client`: the same API for programs without an event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from llama_orch.v2 import (
    app_pb2,
    assignment_pb2,
    catalog_service_pb2,
    decision_pb2,
    fleet_service_pb2,
    model_pb2,
    task_pb2,
)
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.events import Event
from llorch.sdk.pool_calls import DEFAULT_POLICY
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

    def worker_log(self, worker_id: str, *, tail_lines: int = 100, follow: bool = False) -> Iterator[str]:
        return self._iterate(lambda: self._client.worker_log(worker_id, tail_lines=tail_lines, follow=follow))

    def watch_state(self) -> Iterator[fleet_service_pb2.State]:
        return self._iterate(self._client.watch_state)

    def pull_model(self, source: str, node_ids: Sequence[str] = ()) -> Iterator[fleet_service_pb2.PullModelResponse]:
        return self._iterate(lambda: self._client.pull_model(source, node_ids))

    def assign(
        self,
        targets: Sequence[str],
        mode: "assignment_pb2.AssignmentMode.ValueType",
        *,
        model: str = "",
        app: str = "",
        **settings: Any,
    ) -> assignment_pb2.Assignment:
        return self._wait(self._client.assign(targets, mode, model=model, app=app, **settings))

    def assignments(self) -> list[assignment_pb2.Assignment]:
        return self._wait(self._client.assignments())

    def unassign(self, assignment_id: str) -> None:
        self._wait(self._client.unassign(assignment_id))

    def explain(
        self,
        model: str,
        *,
        app: str = "",
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        placement: task_pb2.PlacementOverrides | None = None,
    ) -> decision_pb2.DecisionLog:
        return self._wait(
            self._client.explain(
                model, app=app, prompt_tokens=prompt_tokens, output_tokens=output_tokens, placement=placement
            )
        )

    def decisions(self, *, model: str = "", task_id: str = "") -> list[decision_pb2.DecisionLog]:
        return self._wait(self._client.decisions(model=model, task_id=task_id))

    def create_app(self, name: str, **settings: Any) -> tuple[app_pb2.App, str]:
        return self._wait(self._client.create_app(name, **settings))

    def apps(self) -> list[app_pb2.App]:
        return self._wait(self._client.apps())

    def app(self, name: str) -> app_pb2.App:
        return self._wait(self._client.app(name))

    def update_app(self, name: str, **settings: Any) -> app_pb2.App:
        return self._wait(self._client.update_app(name, **settings))

    def delete_app(self, name: str) -> None:
        self._wait(self._client.delete_app(name))

    def load_model(self, name: str, target: str = "") -> str:
        return self._wait(self._client.load_model(name, target))

    def unload_model(self, name: str, *, even_if_busy: bool = False) -> list[str]:
        return self._wait(self._client.unload_model(name, even_if_busy=even_if_busy))

    def release_gpu(self, gpu: str, for_ms: int | None = None) -> list[str]:
        return self._wait(self._client.release_gpu(gpu, for_ms))

    def resume_gpu(self, gpu: str) -> None:
        self._wait(self._client.resume_gpu(gpu))

    def pool_health(self, pool_id: str) -> fleet_service_pb2.GetPoolHealthResponse:
        return self._wait(self._client.pool_health(pool_id))

    def drain_pool(
        self,
        pool_id: str,
        *,
        deadline_ms: int | None = None,
        policy: "fleet_service_pb2.DrainPolicy.ValueType" = DEFAULT_POLICY,
    ) -> None:
        self._wait(self._client.drain_pool(pool_id, deadline_ms=deadline_ms, policy=policy))

    def reload_pool(
        self,
        pool_id: str,
        *,
        deadline_ms: int | None = None,
        policy: "fleet_service_pb2.DrainPolicy.ValueType" = DEFAULT_POLICY,
    ) -> None:
        self._wait(self._client.reload_pool(pool_id, deadline_ms=deadline_ms, policy=policy))

    def purge_pool(
        self,
        pool_id: str,
        *,
        deadline_ms: int | None = None,
        policy: "fleet_service_pb2.DrainPolicy.ValueType" = DEFAULT_POLICY,
    ) -> None:
        self._wait(self._client.purge_pool(pool_id, deadline_ms=deadline_ms, policy=policy))

    def _stream(self, begin: Callable[[], TaskStream]) -> "SyncTaskStream":
        async def begin_inside() -> TaskStream:
            return begin()

        return SyncTaskStream(self._wait(begin_inside()), self._wait)

    def _iterate(self, begin: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
        """Leaving the iteration ends the call."""
        items = begin()
        try:
            while True:
                try:
                    yield _next(self._wait, items.__anext__)
                except StopIteration:
                    return
        finally:
            self._wait(items.aclose())

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
        return _next(self._wait, self._stream.__anext__)

    def text(self) -> Iterator[str]:
        pieces = self._stream.text()
        while True:
            try:
                yield _next(self._wait, pieces.__anext__)
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


def _next(wait: Callable[[Coroutine[Any, Any, Any]], Any], pull: Callable[[], Awaitable[T]]) -> T:
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
