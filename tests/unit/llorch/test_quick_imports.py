"""A daemon starts with what it needs, and the collector looks at what comes from then on."""

import subprocess
import sys

import pytest

LOOK = (
    "import gc, sys; "
    "print(gc.isenabled(), gc.get_freeze_count() > 20_000, gc.get_stats()[2]['collections'], 'rich' in sys.modules)"
)


@pytest.mark.parametrize("daemon", ["gatewayd", "orchestratord", "pool_managerd", "worker_orcd"])
def test_a_daemon_starts_with_what_it_needs(daemon: str) -> None:
    code = f"import {daemon}.__main__; {LOOK}; import rich.table"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "True", "0", "False"]


def test_what_was_imported_before_stays() -> None:
    code = (
        "import rich, sys; from llorch.quick_imports import quick_imports\n"
        f"with quick_imports(): import structlog\n{LOOK}; assert sys.modules['rich'] is rich"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[0] == "True"
