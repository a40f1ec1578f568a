"""Downloaded models on disk: files by their digest, and for every reference a folder in which they have their names.

    blobs/<sha256>                    a whole file, never changed
    models/<key>/model.json           which reference, which files; its time is when the model was used last
    models/<key>/<name>.gguf          links to blobs: the engine finds the parts of a split model by their names
    parts/<key>                       what is still coming

All of this blocks on the disk; call it in a thread, one call at a time.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llorch.errors import LlorchError, NotFound, Reason, invalid_field
from llorch.files_in import files_in
from llorch.gguf.model_file import read_model
from llorch.logs import get_logger
from pool_managerd.durable_file import sync_folder, write_durably
from pool_managerd.models import cache_room
from pool_managerd.models.download.answer import Interrupted
from pool_managerd.models.download.part_file import PartFile
from pool_managerd.models.located_model import LocatedModel

_log = get_logger(__name__)

_RECORD = "model.json"
_KEEP_PARTS_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachedFile:
    """`name` is how the engine sees it."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ArrivedFile:
    """`part` is None for a file that was in the cache before."""

    name: str
    sha256: str
    size: int
    part: PartFile | None


class ModelCache:
    """`budget` in bytes, None = as much as the disk has."""

    def __init__(self, root: Path, budget: int | None) -> None:
        self._blobs = root / "blobs"
        self._models = root / "models"
        self._budget = budget
        self.parts = root / "parts"

    def open(self) -> list[LocatedModel]:
        """Makes the folders, removes what an interrupted process left, and returns the models that are there.

        Raises `InvalidArgument` where nothing can be kept.
        """
        try:
            for folder in (self._blobs, self._models, self.parts):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise invalid_field(
                "model_cache_dir", f"{self.parts.parent} can't be written to: {error.strerror}"
            ) from error
        self._forget_old_parts()
        found = [model for reference in list(self._records()) if (model := self._if_whole(reference))]
        self._remove_orphans()
        return found

    def find(self, reference: str) -> LocatedModel:
        """Counts as a use. Raises `NotFound` (MODEL_FILE_MISSING)."""
        path = self.path_of(reference)
        files = self._files_of(reference)
        os.utime(self._folder(reference) / _RECORD)
        digest = files[0].sha256 if len(files) == 1 else ""
        return LocatedModel(reference, path, read_model(path), digest)

    def path_of(self, reference: str) -> Path:
        """Of its first file; counts as no use. Raises `NotFound` where not all of its files are there."""
        files = self._files_of(reference)
        folder = self._folder(reference)
        if not files or not all((folder / file.name).is_file() for file in files):
            raise NotFound(Reason.MODEL_FILE_MISSING, f"{reference} was not downloaded to this node yet")
        return folder / files[0].name

    def has_file(self, sha256: str) -> bool:
        return bool(sha256) and (self._blobs / sha256).is_file()

    def add(self, reference: str, files: Sequence[ArrivedFile]) -> LocatedModel:
        """Makes a model of the files that have arrived, all at once. Raises what is wrong with them as a model, and
        removes them then.
        """
        folder = self._folder(reference)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            for file in files:
                self._take_in(file)
                (folder / file.name).symlink_to(Path("..") / ".." / "blobs" / file.sha256)
            read_model(folder / files[0].name)
            listed = [[file.name, file.sha256, file.size] for file in files]
            write_durably(folder / _RECORD, {"reference": reference, "files": listed})
            sync_folder(self._models)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self._remove_orphans()
            raise
        return self.find(reference)

    def remove(self, reference: str) -> int:
        """Bytes that became free. Files that another model has, too, stay."""
        shutil.rmtree(self._folder(reference), ignore_errors=True)
        return self._remove_orphans()

    def make_room(self, needed: int, in_use: Collection[str], coming: Collection[Path]) -> list[str]:
        """The references that had to go. Raises `ResourceExhausted`. `coming`: part files that are being written."""
        kept = [self._kept(reference) for reference in self._records()]
        self._remove_parts(set(self.parts.iterdir()) - set(coming) if self._is_tight(needed, kept) else ())
        gone = cache_room.make_room(needed, kept, self._disk(), in_use)
        for reference in gone:
            freed = self.remove(reference)
            _log.info("model_evicted_from_cache", source=reference, freed_mib=freed // 2**20)
        return gone

    def _take_in(self, file: ArrivedFile) -> None:
        """Gives a whole and checked file its final name. One of another model may have been removed since."""
        blob = self._blobs / file.sha256
        if file.part is not None:
            file.part.move_to(blob)
        elif not blob.is_file():
            raise Interrupted(f"{file.name} was removed from the cache while it was needed; try again")

    def _is_tight(self, needed: int, kept: Sequence[cache_room.Kept]) -> bool:
        """Whether something has to go: then what is left of old downloads goes first."""
        try:
            return bool(cache_room.make_room(needed, kept, self._disk(), ()))
        except LlorchError:
            return True

    def _disk(self) -> cache_room.Disk:
        parts = sum(facts.st_size for _, facts in files_in(self.parts))
        return cache_room.Disk(shutil.disk_usage(self._blobs).free, self._budget, parts)

    def _kept(self, reference: str) -> cache_room.Kept:
        used_at = (self._folder(reference) / _RECORD).stat().st_mtime
        files = tuple((file.sha256, file.size) for file in self._files_of(reference))
        return cache_room.Kept(reference, used_at, files)

    def _records(self) -> Iterator[str]:
        for folder in self._models.iterdir():
            try:
                yield str(json.loads((folder / _RECORD).read_text())["reference"])
            except (OSError, ValueError, KeyError, TypeError):
                shutil.rmtree(folder, ignore_errors=True)  # it was just being made, or just being removed

    def _files_of(self, reference: str) -> list[CachedFile]:
        try:
            record = json.loads((self._folder(reference) / _RECORD).read_text())
            return [CachedFile(*file) for file in record["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _if_whole(self, reference: str) -> LocatedModel | None:
        used_at = (self._folder(reference) / _RECORD).stat().st_mtime
        try:
            model = self.find(reference)
        except LlorchError as error:
            _log.warning("cached_model_is_broken", source=reference, why=error.message)
            self.remove(reference)
            return None
        os.utime(self._folder(reference) / _RECORD, (used_at, used_at))  # a look does not count as a use
        return model

    def _remove_orphans(self) -> int:
        """Blobs that no model has. Those of a model that is just coming are in `parts`."""
        named = {file.sha256 for reference in self._records() for file in self._files_of(reference)}
        freed = 0
        for blob in self._blobs.iterdir():
            if blob.name not in named:
                freed += blob.stat().st_size
                blob.unlink()
        return freed

    def _forget_old_parts(self) -> None:
        horizon = time.time() - _KEEP_PARTS_S
        self._remove_parts(path for path, facts in files_in(self.parts) if facts.st_mtime < horizon)

    def _remove_parts(self, paths: "Iterator[Path] | Collection[Path]") -> None:
        for path in list(paths):
            path.unlink(missing_ok=True)

    def _folder(self, reference: str) -> Path:
        return self._models / key_of(reference)


def key_of(text: str) -> str:
    """A file name that stands for this text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
