"""The options of a system on one machine."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from llorch.state_dir import state_dir

ANY_PORT = "127.0.0.1:0"


class CpuUse(Enum):
    NEVER = "never"
    IF_NO_GPU = "if_no_gpu"
    """Only where no GPU was found."""
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """Addresses are `host:port`, port 0 for any; None is what the settings file says, or the daemon's default.

    `token` is asked for by all daemons; None is what the settings of each say. `token_from` names where its owner gave
    it. `simulate_gpu` has entries like `RTX 3090:24GiB`, `sim` the parameters of the simulated engine as JSON.
    """

    data_dir: Path
    cpu: CpuUse = CpuUse.NEVER
    simulate_gpu: tuple[str, ...] = ()
    simulated_engine: str | None = None
    sim: str | None = None
    http: str | None = None
    grpc: str | None = None
    pool_manager: str | None = None
    config: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_from: str = "--token"  # noqa: S105  # the name of an option


def default_data_dir() -> Path:
    return state_dir()
