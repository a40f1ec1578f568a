"""How a daemon imports its parts: a quarter of the time of its start would go into looking for garbage among them, and
into a library that it does not use.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

_UNUSED = "rich"
"""For the command line. structlog imports it where it is installed, to draw tracebacks, which a daemon has as text."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Once in a process, around the imports of its entry module."""
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    before = modules.get(_UNUSED)
    modules[_UNUSED] = None  # as if it were not installed
    gc.disable()
    try:
        yield
    finally:
        modules.pop(_UNUSED, None)
        if before is not None:
            modules[_UNUSED] = before
        # What was imported is no garbage and never will be: the collector needs not look at it again.
        gc.freeze()
        gc.enable()
