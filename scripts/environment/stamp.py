"""The record that a finished set-up leaves in the environment, so that the next one has nothing to do."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from environment.engine_build import Engine


@dataclass(frozen=True, slots=True)
class Stamp:
    project: str
    """`ProjectFile.fingerprint`."""
    python: str
    """`3.11`: an environment belongs to one minor version."""
    engine: Engine

    def satisfies(self, wanted: "Stamp") -> bool:
        """More than what is wanted is enough: the engine for the GPU also runs on the CPU."""
        same = (self.project, self.python) == (wanted.project, wanted.python)
        enough = {
            Engine.NONE: set(Engine),
            Engine.CPU: {Engine.CPU, Engine.GPU},
            Engine.GPU: {Engine.GPU},
        }
        return same and self.engine in enough[wanted.engine]


def read(path: Path) -> Stamp | None:
    """None if there is none, or one that another version of this script wrote."""
    try:
        content = json.loads(path.read_text())
        return Stamp(content["project"], content["python"], Engine(content["engine"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, stamp: Stamp) -> None:
    path.write_text(json.dumps(asdict(stamp)) + "\n")
