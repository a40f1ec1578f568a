"""Work on the disk from the event loop, in a thread that is waited for whatever happens.

A thread can't be cancelled: whoever leaves it behind closes, moves or removes files under its hands.
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
            thread.exception()  # it was seen; the cancellation says more
        raise
