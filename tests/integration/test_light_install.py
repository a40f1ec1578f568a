"""The base install is the SDK and the command line: both have to load without what only daemons and workers need."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ONLY_ELSEWHERE = (
    "grpc_health", "grpc_reflection", "httpx", "h2", "jinja2", "llama_cpp", "numpy", "psutil", "pynvml",
    "structlog", "uvloop",
)  # fmt: skip
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({ONLY_ELSEWHERE!r}))\n"


@pytest.mark.parametrize(
    "code",
    [
        "import llorch; llorch.Client; llorch.AsyncClient",
        "import llorch.cli.main, sys; sys.argv = ['llorch', '--help']; llorch.cli.main.main()",
    ],
    ids=["sdk", "command line"],
)
def test_it_loads_without_the_extras(code: str) -> None:
    loaded = subprocess.run([sys.executable, "-c", WITHOUT + code], check=False, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr


def test_the_extras_are_not_among_the_base_dependencies() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(dependencies) <= 8
