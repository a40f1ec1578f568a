"""Waiting for grpc.aio so that it frees what it took.

grpc.aio allocates the operations of a batch (a read, a write, a whole unary call) outside of Python, and frees them
only when the coroutine that waits for the batch goes on. A task that is cancelled while it waits, and `cancel` of a
call whose own task waits, leave 0.2 to 1 KiB behind for ever (github.com/grpc/grpc/issues/43360). So no cancellation
reaches a batch here: it ends the call, and with it the batch, and is raised when the batch is done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

# A call that was ended completes its batches at once. One that does not is cancelled after all.
_DONE_WITHIN_S = 1.0


class Settled(Generic[Result]):
    """`await Settled(rpc.read(), end)`: the same as without it, but a cancellation calls `end` and waits for the batch.

    `end` has to end the call without cancelling its tasks, as `end_call` does. Without one the batch is known to end by
    itself, as it does on a server whose client has left.

    While it waits, this stands for the future of the batch: the task that waits can't cancel that one, only ask for its
    end. asyncio takes it for a future by its attributes, as `asyncio.isfuture` says, which are those of the real one.
    """

    __slots__ = ("_asyncio_future_blocking", "_awaitable", "_end", "_future", "_late", "add_done_callback", "get_loop")

    def __init__(self, awaitable: Awaitable[Result], end: Callable[[], None] | None = None) -> None:
        self._awaitable = awaitable
        self._end = end
        self._late: asyncio.TimerHandle | None = None

    def __await__(self) -> Generator[Any, None, Result]:
        waiting = self._awaitable.__await__()
        cancelled: asyncio.CancelledError | None = None
        try:
            future = next(waiting)
            while True:
                # Set by the future when it was yielded, for the task that this stands before.
                future._asyncio_future_blocking = False  # noqa: SLF001  # asyncio's own protocol
                self._asyncio_future_blocking = True
                self._future: asyncio.Future[Any] = future
                self.get_loop = future.get_loop
                self.add_done_callback = future.add_done_callback
                try:
                    yield self
                except asyncio.CancelledError as error:
                    if self._late is None and future.cancelled():  # by `rpc.cancel()`, for example
                        future = waiting.throw(error)
                        continue
                    cancelled = error
                except Exception as error:  # noqa: BLE001  # how the batch ended
                    future = waiting.throw(error)
                    continue
                future = next(waiting)
        except StopIteration as done:
            if cancelled is not None:
                raise cancelled from None
            result: Result = done.value
            return result
        except Exception:
            if cancelled is not None:
                raise cancelled from None
            raise
        finally:
            cancelled = None  # what was raised has this frame in its traceback, and would hold itself by it
            if self._late is not None:
                self._late.cancel()

    def cancel(self, _message: object = None) -> bool:
        """False: nothing is cancelled yet, and the task raises its cancellation when the batch is done."""
        if self._late is None:
            self._late = self.get_loop().call_later(_DONE_WITHIN_S, self._give_up)
            if self._end is not None:
                self._end()
        return False

    def _give_up(self) -> None:
        self._future.cancel()


def end_call(rpc: Any) -> None:
    """Ends a call of a client, unless it is over. `rpc.cancel()` also cancels the call's own task, which may be waiting
    for a batch.
    """
    cancel = getattr(rpc, "_cancel", None)
    if cancel is None:
        rpc.cancel()
    else:
        cancel("the caller left")
