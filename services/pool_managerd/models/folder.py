"""The folder that `models_dir` names: every model in it is offered, under the name of its file."""

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from llorch.errors import LlorchError
from llorch.gguf.split_name import split_name
from llorch.logs import get_logger
from llorch.model_reference import GGUF_SUFFIX, FolderReference
from pool_managerd.models.locate import locate_file
from pool_managerd.models.located_model import LocatedModel

_log = get_logger(__name__)

_LOOK_EVERY_S = 5.0
_DEEPEST = 4
MOST_MODELS = 5000
_NO_NAME = re.compile(r"[^A-Za-z0-9._:-]+", re.ASCII)
_LONGEST_NAME = 128
_NO_MODELS = ("mmproj", "imatrix")

FileState = tuple[int, int]
"""Time of the last change in ns, and size: whether a file is as it was when it was looked at."""


class ModelsFolder:
    """Looked at again every few seconds. `changed` is called when it offers something else than before.

    A file that is still being copied is no model yet: its header says how long it has to be.
    """

    def __init__(self, root: Path, changed: Callable[[], None]) -> None:
        self._root = root.expanduser().absolute()
        self._changed = changed
        self._seen: dict[str, FileState] = {}
        self._told_left_out = 0
        self.models: Mapping[str, LocatedModel] = {}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        found = await asyncio.to_thread(self._look)
        if found != self.models:
            self.models = found
            self._changed()

    def find(self, reference: FolderReference) -> LocatedModel:
        """Follows links: a user that may make them here may name any file. Raises what `locate` raises."""
        return locate_file(reference.text, self.path_of(reference))

    def path_of(self, reference: FolderReference) -> Path:
        """Where it would be."""
        return self._root / reference.file

    def _look(self) -> dict[str, LocatedModel]:
        """Only files that are new or were changed are opened."""
        seen: dict[str, FileState] = {}
        found: dict[str, LocatedModel] = {}
        names: dict[str, str] = {}
        for path in self._files():
            file = path.relative_to(self._root).as_posix()
            state = seen[file] = _state_of(path)
            reference = f"dir:{file}"
            known = self.models.get(reference)
            model = known if self._seen.get(file) == state else self._read(FolderReference(reference, file), path)
            if model is None:
                continue
            other = names.setdefault(model.offered_as, file)
            if other == file:
                found[reference] = model
            elif self._seen.get(file) != state:
                _log.warning("model_of_folder_has_a_taken_name", file=file, name=model.offered_as, taken_by=other)
        self._seen = seen
        return found

    def _files(self) -> Iterator[Path]:
        """The first file of every model, in an order that does not change."""
        paths: list[Path] = []
        for folder, folders, files in os.walk(self._root, followlinks=False):
            here = Path(folder)
            folders[:] = [] if len(here.relative_to(self._root).parts) >= _DEEPEST else sorted(folders)
            paths += [here / file for file in files if _is_first_of_model(file)]
        self._tell_left_out(len(paths) - MOST_MODELS)
        return iter(sorted(paths)[:MOST_MODELS])

    def _tell_left_out(self, count: int) -> None:
        if max(0, count) != self._told_left_out:
            self._told_left_out = max(0, count)
            _log.warning(
                "models_of_folder_left_out",
                left_out=self._told_left_out,
                what_to_do=f"the first {MOST_MODELS} by name are offered; move others out of models_dir",
            )

    def _read(self, reference: FolderReference, path: Path) -> LocatedModel | None:
        try:
            return locate_file(reference.text, path, offered_as=name_of(path.name))
        except (LlorchError, OSError) as error:
            _log.warning("file_of_folder_is_no_model", file=reference.file, why=str(error))
            return None


def name_of(file_name: str) -> str:
    """The file's stem, with what may not be in a name replaced."""
    split = split_name(file_name)
    stem = split.stem if split else file_name[: -len(GGUF_SUFFIX)]
    return _NO_NAME.sub("-", stem).strip("-")[:_LONGEST_NAME] or "model"


def _is_first_of_model(file_name: str) -> bool:
    if not file_name.lower().endswith(GGUF_SUFFIX) or file_name.lower().startswith((".", *_NO_MODELS)):
        return False
    split = split_name(file_name)
    return split is None or split.number == 1


def _state_of(path: Path) -> FileState:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
