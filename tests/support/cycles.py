"""What only Python's collector can free: objects that hold each other, or themselves."""

import asyncio
import gc
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType, FunctionType, MethodType, TracebackType
from typing import Any

_GOES_WITHIN_S = 0.1
"""Of what a loop that runs still holds: tasks that end, timers that were cancelled."""


async def cycles_left_by(once: Callable[[], Awaitable[None]], times: int, *packages: str) -> Counter[str]:
    """The objects of these packages, by what they are, that wait for the collector after `times` turns, and the frames
    of their code. What is there for less than half of the turns, happens once and not with each.
    """
    await once()
    await asyncio.sleep(_GOES_WITHIN_S)
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            await once()
        await asyncio.sleep(_GOES_WITHIN_S)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(what for what in map(_name, gc.garbage) if what.split(".")[0] in packages)
        return Counter({what: count for what, count in found.items() if 2 * count >= times})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _name(found: Any) -> str:
    if isinstance(found, MethodType):
        found = found.__func__
    if isinstance(found, FunctionType):
        return f"{found.__module__}.{found.__qualname__}"
    if isinstance(found, TracebackType):
        found = found.tb_frame
    if inspect.iscoroutine(found):
        found = found.cr_frame
    if isinstance(found, FrameType):
        return f"{found.f_globals.get('__name__', '')}.{found.f_code.co_qualname}"
    return f"{type(found).__module__}.{type(found).__qualname__}"
