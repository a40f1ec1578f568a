"""Writing to a reader that may have stopped reading.

After about 64 KiB a write to a slow peer blocks without a limit.
"""

import asyncio
from typing import Any

from llorch.errors import Reason, Unavailable
from llorch.rpc.settled import Settled


async def write_with_deadline(context: Any, message: Any, timeout_s: float) -> None:
    """Writes one message of a server stream; raises Unavailable(SLOW_READER) when that takes longer.

    The handler must not catch the error: it ends this reader's stream and nothing else. The reader may come back
    with its cursor. `context` is the handler's. A handler that is cancelled meanwhile is so once the write is done: the
    library sends no status for a call whose write was cancelled.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await Settled(context.write(message))
    except TimeoutError:
        raise slow_reader(timeout_s) from None


def slow_reader(timeout_s: float) -> Unavailable:
    return Unavailable(
        Reason.SLOW_READER,
        f"this stream was not read for {timeout_s:g} s and was given up; read again from the last cursor",
    )
