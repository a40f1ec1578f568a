"""The virtual environment: made once, made again when it is broken or belongs to another Python."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from environment import long_step
from environment.errors import SetUpError

PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
ASK_ENGINE = """
import importlib.metadata, llama_cpp
print(importlib.metadata.version("llama-cpp-python"), llama_cpp.llama_supports_gpu_offload())
"""


class VirtualEnvironment:
    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._logs = logs

    def ensure(self) -> None:
        if self._is_usable():
            return
        missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
        if missing:
            version = "{}.{}".format(*sys.version_info)
            raise SetUpError(
                f"{sys.executable} comes without {' and '.join(missing)}, which make virtual environments.\n"
                f"Install them (Debian, Ubuntu: sudo apt install python{version}-venv) and try again."
            )
        long_step.run(
            [sys.executable, "-m", "venv", "--clear", str(self.folder)],
            title=f"Making {self.folder.name} with Python {sys.version.split()[0]}",
            log=self._logs / "venv.log",
        )

    def pip(
        self,
        verb: str,
        arguments: Sequence[str],
        *,
        title: str,
        log: str,
        environment: dict[str, str] | None = None,
        hint: str = "",
    ) -> None:
        long_step.run(
            [str(self.python), "-m", "pip", verb, *PIP_OPTIONS, *arguments],
            title=title,
            log=self._logs / log,
            environment=environment,
            hint=hint,
        )

    def has_cached_wheel(self, name: str) -> bool:
        listed = self._ask("-m", "pip", "cache", "list", name.replace("-", "_"), "--format", "abspath")
        return listed.returncode == 0 and bool(listed.stdout.strip())

    def ask_engine(self) -> tuple[str, bool]:
        """Version of the engine, and whether it can use a GPU. Raises SetUpError if it can't be loaded."""
        answer = self._ask("-c", ASK_ENGINE)
        words = answer.stdout.split()
        if answer.returncode or len(words) < 2:
            last = answer.stderr.strip().splitlines()[-1:] or ["no answer"]
            raise SetUpError(f"the engine does not load: {last[0]}")
        return words[-2], words[-1] == "True"

    def engine_is_sound(self, probe: Path) -> bool:
        """Whether the engine's fastest instructions work, if it has them. `probe` is the script that tries them."""
        return self._ask(str(probe)).returncode in (0, 3)

    def forget_cached_wheel(self, name: str) -> None:
        self._ask("-m", "pip", "cache", "remove", name.replace("-", "_"))

    def _is_usable(self) -> bool:
        if not self.python.exists():
            return False
        asked = self._ask("-c", "import sys, pip; print(*sys.version_info[:2])")
        return asked.returncode == 0 and asked.stdout.split() == [str(part) for part in sys.version_info[:2]]

    def _ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
