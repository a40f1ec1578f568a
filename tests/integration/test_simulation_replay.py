"""A seed replays its world in any process: what a failure of tests/sim prints is enough to see it again."""

import functools
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_equal_seeds_give_equal_runs_in_any_process() -> None:
    """Also where hashes of strings, and so the order of sets, differ."""
    assert _digests("1") == _digests("2")


def test_another_seed_gives_another_run() -> None:
    digests = _digests("1").splitlines()
    assert len(set(digests)) == len(digests) > 1


@functools.cache
def _digests(hash_seed: str) -> str:
    command = [sys.executable, "-m", "support.simulation", "0-8", "--digest"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
