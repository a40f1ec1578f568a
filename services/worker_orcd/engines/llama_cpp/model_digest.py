"""The SHA-256 of a model's file, computed beside its loading and remembered until the file changes."""

import json
import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from llorch.file_identity import identity_of
from llorch.files_in import files_in
from llorch.half_written import remove_left
from llorch.logs import get_logger

_MOST_KEPT = 1000
"""Files of models whose digests are remembered; the oldest is computed again."""

_PIECE_BYTES = 1024 * 1024
_log = get_logger("llama.cpp")


class ModelDigest:
    """Begins to compute on a thread of its own, which reads what the load reads anyway.

    `go_on` is asked now and then; once it says no, there is no digest. In `folder`, if there is one, digests are
    kept between starts.
    """

    def __init__(self, path: Path, folder: Path | None, go_on: Callable[[], bool]) -> None:
        self._path = path
        self._memory = _Memory(folder, path) if folder is not None else None
        self._go_on = go_on
        self._digest = ""
        self._thread = threading.Thread(target=self._run, name="model digest", daemon=True)
        self._thread.start()

    def wait(self) -> str:
        """In hexadecimal; empty where the file can't be read, or changed while it was."""
        self._thread.join()
        return self._digest

    def _run(self) -> None:
        try:
            self._digest = self._remembered_or_computed()
        except OSError as error:
            _log.warning("model_digest_failed", file=self._path.name, error=error.strerror)

    def _remembered_or_computed(self) -> str:
        with self._path.open("rb", buffering=0) as file:
            identity = identity_of(os.fstat(file.fileno()))
            remembered = self._memory.recall(identity) if self._memory else ""
            if remembered:
                return remembered
            digest = sha256()
            piece = bytearray(_PIECE_BYTES)
            while self._go_on() and (count := file.readinto(piece)):
                digest.update(memoryview(piece)[:count])
            if not self._go_on() or identity_of(os.fstat(file.fileno())) != identity:
                return ""
        if self._memory:
            self._memory.keep(identity, digest.hexdigest())
        return digest.hexdigest()


class _Memory:
    """One small file per model file, which says to which state of it the digest belongs."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._folder = folder
        self._path = folder / f"{sha256(os.fsencode(path.absolute())).hexdigest()[:32]}.json"

    def recall(self, identity: dict[str, int]) -> str:
        """Empty if nothing is known; whatever is wrong with the file, computing again is right."""
        try:
            known = json.loads(self._path.read_bytes())
            return str(known["sha256"]) if known["identity"] == identity else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def keep(self, identity: dict[str, int], digest: str) -> None:
        """If it can't be kept, the next start computes again."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_left(self._folder, "tmp*")
            with NamedTemporaryFile("w", prefix="tmp", dir=self._folder, delete=False) as file:
                json.dump({"identity": identity, "sha256": digest}, file)
            Path(file.name).replace(self._path)
            self._forget_oldest()
        except OSError as error:
            _log.warning("model_digest_not_kept", error=error.strerror)

    def _forget_oldest(self) -> None:
        """Also what a process left that was killed while it wrote."""
        found = sorted((facts.st_mtime_ns, file) for file, facts in files_in(self._folder))
        for _, file in found[:-_MOST_KEPT]:
            file.unlink(missing_ok=True)
