"""From a reference to a checked file on this host."""

import importlib
import importlib.util
import os
from pathlib import Path

from llorch.errors import NotFound, PermissionDenied, Reason, invalid_field
from llorch.gguf.model_file import read_model
from llorch.model_reference import FileReference, PackageReference
from pool_managerd.models.gguf import check_gguf
from pool_managerd.models.located_model import LocatedModel


def locate(reference: FileReference | PackageReference) -> LocatedModel:
    """Blocks on the disk for a moment; call it in a thread. Raises what `locate_file` raises."""
    return locate_file(reference.text, path_of(reference))


def locate_file(reference: str, path: Path, *, offered_as: str = "") -> LocatedModel:
    """Raises `NotFound` (MODEL_FILE_MISSING), `PermissionDenied` (MODEL_FILE_INVALID: not readable) or
    `FailedPrecondition` (MODEL_FILE_INVALID: not a GGUF file, or not a whole one). Messages name the file without its
    folder: they travel to clients, and the folder is this host's business.
    """
    check_there(reference, path)
    check_gguf(path)
    return LocatedModel(reference, path, read_model(path), offered_as=offered_as)


def check_there(reference: str, path: Path) -> None:
    """Raises as `locate_file`, without a look into the file."""
    if not path.is_file():
        raise NotFound(Reason.MODEL_FILE_MISSING, f"{reference}: {path.name} {_why_no_file(path)}")
    if not os.access(path, os.R_OK):
        raise PermissionDenied(
            Reason.MODEL_FILE_INVALID, f"{path.name} may not be read by the user who runs the pool manager"
        )


def _why_no_file(path: Path) -> str:
    """With the remedy. It follows the name of the file."""
    if path.is_dir():
        return "is a folder, not a model file; name a .gguf file in it"
    if path.exists():
        return "is no file that can be read as often as it is needed; name a .gguf file"
    return "is not there; bring it there, or add the model again with the place where it is (`llorch models add`)"


def path_of(reference: FileReference | PackageReference) -> Path:
    """Where it would be."""
    match reference:
        case FileReference():
            return Path(reference.path).expanduser()
        case PackageReference():
            return _path_in_package(reference)


def _path_in_package(reference: PackageReference) -> Path:
    """Finds the package without importing it: a model's package must not run code here."""
    root = _folder_of_package(reference.package)
    if root is None:
        raise NotFound(
            Reason.MODEL_FILE_MISSING,
            f"{reference.text}: the Python package {reference.package} is not installed where the pool manager runs; "
            "install it there with pip",
        )
    path = (root / reference.file).resolve()
    if not path.is_relative_to(root):
        raise invalid_field("source", f'"{reference.text}" leads out of the package')
    return path


def _folder_of_package(name: str) -> Path | None:
    importlib.invalidate_caches()  # it may have been installed after this process started
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        return None  # a module that is loaded and was never a package, `__main__` for one
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve()
