"""Which files of a repository a reference means: by quantization, by name, or because there is only one. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from llorch.errors import LlorchError, NotFound, Reason, invalid_field
from llorch.gguf.split_name import split_name
from llorch.model_reference import GGUF_SUFFIX, HubReference

_QUANTIZATION = re.compile(
    r"(?:^|[-._])(?P<label>(?:UD-)?(?:I?Q\d(?:_(?:\d|K|NL|X*[SL]|M))*|BF16|F16|F32|TQ\d_\d|MXFP4(?:_MOE)?))$",
    re.IGNORECASE,
)
_NO_MODELS = re.compile(r"(?:^|[-_.])(?:mmproj|imatrix)(?:[-_.]|$)", re.IGNORECASE)
_GIB = 2**30
_MOST_LISTED = 40


@dataclass(frozen=True, slots=True)
class HubFile:
    """`path` within the repository; `size` in bytes and `sha256` are None and empty where the Hub does not say them."""

    path: str
    size: int | None = None
    sha256: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Choice:
    """A model of the repository: all of its files, the first one first. `label` names its quantization, or its file."""

    label: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int | None:
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def choose(reference: HubReference, files: Iterable[HubFile], where_it_fits: Callable[[int], str]) -> Choice:
    """The model that is meant. Raises a refusal that lists what there is, each with its size and `where_it_fits`."""
    choices = _choices(files)
    if not choices:
        raise NotFound(
            Reason.MODEL_FILE_MISSING,
            f"{reference.repo} holds no GGUF file; look for a repository of the same model with GGUF in its name",
        )
    meant = [choice for choice in choices if _is_meant(reference, choice)]
    if len(meant) == 1:
        return meant[0]
    raise _unclear(reference, meant or choices, found_any=bool(meant), where_it_fits=where_it_fits)


def quantization_of(file_name: str) -> str:
    """As the file's name says it, e.g. "Q4_K_M"; empty if it does not."""
    split = split_name(file_name)
    stem = split.stem if split else file_name[: -len(GGUF_SUFFIX)]
    found = _QUANTIZATION.search(stem)
    return found["label"].upper() if found else ""


def _choices(files: Iterable[HubFile]) -> list[Choice]:
    """A split model is there if all of its files are."""
    by_path = {file.path: file for file in files if _is_model(file)}
    found = []
    for path, file in sorted(by_path.items()):
        split = split_name(file.name)
        if split is not None and split.number != 1:
            continue
        folder = path.removesuffix(file.name)
        names = split.all() if split else [file.name]
        parts = [by_path[folder + name] for name in names if folder + name in by_path]
        if len(parts) == len(names):
            found.append(Choice(quantization_of(file.name) or path, tuple(parts)))
    return found


def _is_model(file: HubFile) -> bool:
    parts = file.path.split("/")
    is_proper = not any(part in ("", ".", "..") for part in parts) and file.path.isprintable() and "\\" not in file.path
    return is_proper and file.name.lower().endswith(GGUF_SUFFIX) and not _NO_MODELS.search(file.name)


def _is_meant(reference: HubReference, choice: Choice) -> bool:
    if reference.file:
        return choice.files[0].path == reference.file
    if reference.quantization:
        return choice.label.upper() == reference.quantization.upper()
    return True


def _unclear(
    reference: HubReference, choices: Sequence[Choice], *, found_any: bool, where_it_fits: Callable[[int], str]
) -> LlorchError:
    labels = [choice.label for choice in choices]
    unique = len(set(labels)) == len(labels)
    names = [_reference_of(reference, choice, by_label=unique) for choice in choices]
    rows = [
        f"  {name}  {_size(choice)}  {_fit(choice, where_it_fits)}".rstrip()
        for name, choice in zip(_aligned(names), choices, strict=True)
    ]
    if len(rows) > _MOST_LISTED:
        rows[_MOST_LISTED:] = [f"  and {len(rows) - _MOST_LISTED} more"]
    listed = "\n".join(rows)
    if found_any:
        return invalid_field("source", f"{reference.text} could be {len(choices)} models; name one of them:\n{listed}")
    asked = reference.file or reference.quantization
    near = get_close_matches(asked.upper(), [label.upper() for label in labels], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return NotFound(Reason.MODEL_FILE_MISSING, f"{reference.repo} has no {asked}{hint}; it has:\n{listed}")


def _reference_of(reference: HubReference, choice: Choice, *, by_label: bool) -> str:
    revision = f"@{reference.revision}" if reference.revision else ""
    if by_label and quantization_of(choice.files[0].name):
        return f"hf:{reference.repo}:{choice.label}{revision}"
    return f"hf:{reference.repo}/{choice.files[0].path}{revision}"


def _aligned(names: Sequence[str]) -> list[str]:
    width = max(len(name) for name in names)
    return [name.ljust(width) for name in names]


def _size(choice: Choice) -> str:
    return "   ? GiB" if choice.size is None else f"{choice.size / _GIB:4.1f} GiB"


def _fit(choice: Choice, where_it_fits: Callable[[int], str]) -> str:
    return "" if choice.size is None else where_it_fits(choice.size)
