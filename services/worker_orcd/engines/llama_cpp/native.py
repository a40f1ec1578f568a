"""llama.cpp's library: found, imported once, and silenced.

The library logs to stderr by itself; its lines come here instead, and the first complaints are kept, for they
are all that it says about why a load failed.
"""

import ctypes
from functools import cache
from typing import Any

from llorch.errors import FailedPrecondition, Reason
from llorch.logs import get_logger

INSTALL = (
    'pip install "llama-orch[llamacpp]"; for a GPU: CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall '
    "--no-cache-dir llama-cpp-python==0.3.36, or a prebuilt CUDA wheel from the index that its README names"
)
MAX_COMPLAINTS = 20
_WARN, _ERROR, _CONTINUED = 3, 4, 5
"""GGML_LOG_LEVEL_*; the numbers in the package's own Python logger are out of date."""

_log = get_logger("llama.cpp")


class NativeLog:
    """Takes the library's lines, from any of its threads."""

    def __init__(self, lib: Any) -> None:
        self._complaints: list[str] = []
        self._level = 0
        self._callback = lib.llama_log_callback(self._on_line)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def forget(self) -> None:
        """A load begins: earlier lines are not about it."""
        self._complaints.clear()

    def first_complaint(self) -> str:
        """What went wrong; the later lines tell only that the load failed."""
        return self._complaints[0] if self._complaints else "it does not say why"

    def _on_line(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _CONTINUED:
            self._level = level
        line = text.decode(errors="replace").strip()
        if line and self._level == _ERROR and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(line)
        if line and self._level in (_WARN, _ERROR):
            _log.debug("native_log", line=line)


class Native:
    """The imported library; made by `load_native` alone. `lib` has its functions under their C names."""

    def __init__(self) -> None:
        try:
            import llama_cpp
            from llama_cpp import llama_cpp as lib
        except (ImportError, OSError) as error:
            raise FailedPrecondition(
                Reason.MODEL_LOAD_FAILED, f"llama-cpp-python can't be imported ({error}); install it: {INSTALL}"
            ) from None
        self.lib: Any = lib
        self.version: str = llama_cpp.__version__
        self.log = NativeLog(lib)

    def system_info(self) -> str:
        """Build flags and instruction sets, as the library prints them."""
        return bytes(self.lib.llama_print_system_info()).decode(errors="replace").strip()


@cache
def load_native() -> Native:
    """The one library of this process. It is kept for good: the library calls back until the process ends."""
    return Native()
