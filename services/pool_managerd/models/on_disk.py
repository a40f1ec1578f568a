"""Work on the disk from the event loop, in a thread that is waited for even when the caller is cancelled.

A thread can't be cancelled: a caller that left it behind would close, move or remove files while it uses them.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """For what takes a moment: a cancellation has to wait for it."""
    thread = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        if not thread.cancelled():
            thread.exception()  # the caller gets the cancellation instead of this error
        raise
