"""The file that a model reference led to. Pure; `locate.py` looks at the disk, `download/` fetches."""

from dataclasses import dataclass, field
from pathlib import Path

from llorch.gguf.facts import FileFacts


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """A model file that is there and looks like one.

    `digest` is the SHA-256 of a file in the cache, empty elsewhere and for split models. `offered_as` is the name of a
    model of `models_dir`, empty for others.
    """

    reference: str
    path: Path
    facts: FileFacts = field(repr=False)
    digest: str = ""
    offered_as: str = ""

    @property
    def size_bytes(self) -> int:
        """Of all of its files."""
        return self.facts.file_bytes
