"""The folder of this user in which programs of llama-orch keep what outlives them."""

import os
from collections.abc import Mapping
from pathlib import Path

from llorch.errors import FailedPrecondition, Reason


def state_dir(env: Mapping[str, str] | None = None) -> Path:
    """Raises FailedPrecondition for a user without a home."""
    variables = os.environ if env is None else env
    state = variables.get("XDG_STATE_HOME") or _home(variables) / ".local" / "state"
    return Path(state) / "llama-orch"


def _home(variables: Mapping[str, str]) -> Path:
    try:
        return Path(variables.get("HOME") or Path.home())
    except RuntimeError:
        raise FailedPrecondition(
            Reason.INVALID_FIELD,
            f"user {os.geteuid()} has no home directory to keep anything in; set HOME, or XDG_STATE_HOME",
        ) from None
