"""A daemon ends with the process that started it, however that process ends.

`llorch up` gives its daemons a pipe as stdin and says so in the environment. It never writes to the pipe, which closes
when `llorch up` has ended, also by SIGKILL.
"""

import asyncio
import os
from collections.abc import Callable

VARIABLE = "LLORCH_LIFELINE"
STDIN = "stdin"


def watch(on_lost: Callable[[], None]) -> None:
    """Calls `on_lost` in the running loop once the lifeline is gone. Does nothing where there is none."""
    # Not inherited: a child's stdin is another one.
    if os.environ.pop(VARIABLE, None) != STDIN:
        return
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            on_lost()

    loop.add_reader(0, look)
