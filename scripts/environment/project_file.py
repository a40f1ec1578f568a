"""The packages that pyproject.toml names."""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

ENGINE = "llama-cpp-python"


@dataclass(frozen=True, slots=True)
class ProjectFile:
    engine_requirement: str
    """`llama-cpp-python==0.3.36`."""
    engine_requirements: tuple[str, ...]
    """All of the extra `llamacpp`."""
    fingerprint: str
    """Of the parts that decide what is installed; a changed lint rule does not change it."""

    @property
    def engine_version(self) -> str:
        return self.engine_requirement.partition("==")[2]


def read(path: Path) -> ProjectFile:
    content = tomllib.loads(path.read_text())
    engine = tuple(content["project"]["optional-dependencies"]["llamacpp"])
    deciding = {key: content[key] for key in ("build-system", "project")}
    deciding["hatch"] = content["tool"]["hatch"]
    return ProjectFile(
        engine_requirement=next(name for name in engine if name.startswith(ENGINE)),
        engine_requirements=engine,
        fingerprint=hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest(),
    )
