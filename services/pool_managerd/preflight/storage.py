"""Whether there is room for models, and whether the folders can be used."""

import os
import shutil
from pathlib import Path

from pool_managerd.models.folder import ModelsFolder
from pool_managerd.preflight.finding import Finding, failed, ok, warning
from pool_managerd.settings import PoolManagerSettings

_GIB = 2**30
_LEAST_BYTES = 1 * _GIB  # what the cache of models leaves to the rest of the system
_LITTLE_BYTES = 10 * _GIB  # room for one or two small models


def find_data_dir(settings: PoolManagerSettings) -> Finding:
    """Creates nothing: a check must not change the machine."""
    folder = settings.data_dir.expanduser().absolute()
    there = _nearest(folder)
    if not there.is_dir():
        return failed("data", f"{folder} can't be made: {there} is no folder", "set another one with --data-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        return failed(
            "data",
            f"{there} may not be written to by this user",
            f"give it to the user who runs the pool manager (chown), or set another one with --data-dir ({folder})",
        )
    return ok("data", f"{folder}" if folder.exists() else f"{folder}, made at the first start")


def find_disk(settings: PoolManagerSettings) -> Finding:
    folder = (settings.model_cache_dir or settings.data_dir / "models").expanduser().absolute()
    try:
        free = shutil.disk_usage(_nearest(folder)).free
    except OSError as error:
        return failed("disk", f"{folder} can't be looked at: {error.strerror}", "set another one: model_cache_dir")
    found = f"{free / _GIB:.1f} GiB free for downloaded models in {folder}"
    fix = "make room on that disk, or set model_cache_dir to a folder on a larger one"
    if free < _LEAST_BYTES:
        return failed("disk", found, fix)
    return warning("disk", found, fix) if free < _LITTLE_BYTES else ok("disk", found)


async def find_models_dir(settings: PoolManagerSettings) -> Finding:
    """Reads the header of every model there."""
    if problem := models_dir_problem(settings):
        return problem
    if settings.models_dir is None:
        return ok("models", "models_dir is not set; `llorch pull` brings models")
    folder = ModelsFolder(settings.models_dir, lambda: None)
    await folder.look()
    count = len(folder.models)
    if not count:
        return warning(
            "models", f"models_dir {settings.models_dir} has no .gguf file", "put models there, or correct models_dir"
        )
    return ok("models", f"{count} {'model' if count == 1 else 'models'} in {settings.models_dir}")


def models_dir_problem(settings: PoolManagerSettings) -> Finding | None:
    """A warning only: a disk that is not mounted yet must not keep a machine from its other models."""
    if settings.models_dir is None:
        return None
    folder = settings.models_dir.expanduser().absolute()
    if not folder.is_dir():
        return warning("models", f"models_dir {folder} is no folder", "make or mount it, or correct models_dir")
    if not os.access(folder, os.R_OK | os.X_OK):
        return warning(
            "models",
            f"models_dir {folder} may not be read by this user",
            "give the user who runs the pool manager access to it (chmod, or its group)",
        )
    return None


def _nearest(folder: Path) -> Path:
    """The folder itself, or what of its path there is."""
    return next(part for part in (folder, *folder.parents) if part.exists())
