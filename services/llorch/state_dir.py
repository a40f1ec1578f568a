"""The folder of this user in which programs of llama-orch keep what outlives them."""

import os
from collections.abc import Mapping
from pathlib import Path


def state_dir(env: Mapping[str, str] | None = None) -> Path:
    variables = os.environ if env is None else env
    state = variables.get("XDG_STATE_HOME") or Path(variables.get("HOME") or Path.home()) / ".local" / "state"
    return Path(state) / "llama-orch"
