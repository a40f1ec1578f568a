"""The folder where workers leave the KV caches of sessions for each other, and its one owner.

Workers write there and read; what is over, too much, half written or not wanted any more goes from here. What is there
is private, so that nothing of it outlives its time because a worker or an orchestrator is gone.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from llorch.half_written import remove_left
from llorch.logs import get_logger
from llorch.saved_sessions import KEY_BYTES, WRITTEN_AS, SavedFile, files_of, remove_beyond, session_of
from pool_managerd.durable_file import write_durably
from pool_managerd.saved_place import SavedPlace, SavedState

SWEEP_S = 2.0
_KEY = "key"
"""This name stays: the next release reads it."""

_MIB = 2**20
_log = get_logger(__name__)


class SavedSessions:
    """Made with the folder and the key, which blocks for a moment. Where they can't be made, nothing is saved: `place`
    is None then, as with a budget of 0. `changed` is called when `state` is another one.
    """

    def __init__(self, folder: Path, key_path: Path, budget_mib: int, changed: Callable[[], None]) -> None:
        self._folder = folder
        self._changed = changed
        self.place = _place(folder, key_path, budget_mib) if budget_mib else None
        self._budget_mib = budget_mib if self.place is not None else 0
        self.state = SavedState(budget_mib=self._budget_mib)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(SWEEP_S)

    async def forget(self, sessions: Iterable[str]) -> None:
        """Removes what there is of these; of all where none is named."""
        await asyncio.to_thread(self._remove_those_of, set(sessions))
        await self.look()

    async def look(self) -> None:
        """Removes what has to go, and counts what is there."""
        state = await asyncio.to_thread(self._swept)
        if state != self.state:
            self.state = state
            self._changed()

    def _swept(self) -> SavedState:
        """Removes what is over, beyond the budget, or half written by a worker that has gone; what there is then."""
        remove_left(self._folder, WRITTEN_AS)
        found, now = files_of(self._folder), time.time()
        for file in found:
            if file.ends_at <= now:
                self._remove(file)
        try:
            remove_beyond([file for file in found if file.ends_at > now], self._budget_mib * _MIB)
        except OSError as error:
            _log.warning("saved_sessions_not_removed", error=error.strerror)
        left = files_of(self._folder)
        size = sum(file.size_bytes for file in left)
        return SavedState(len(left), -(-size // _MIB), self._budget_mib)

    def _remove_those_of(self, sessions: AbstractSet[str]) -> None:
        for file in files_of(self._folder):
            if not sessions or session_of(file.path) in sessions:
                self._remove(file)

    def _remove(self, file: SavedFile) -> None:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("saved_session_not_removed", file=file.path.name, error=error.strerror)


def _place(folder: Path, key_path: Path, budget_mib: int) -> SavedPlace | None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        return SavedPlace(folder, budget_mib, _key_in(key_path))
    except OSError as error:
        _log.error(
            "sessions_not_saved",
            folder=str(folder),
            why=error.strerror,
            what_to_do="make room on the disk of data_dir, and let this user write there; then start this pool manager "
            "again. Until then the next turn of a session evaluates its whole prompt after each unload",
        )
        return None


def _key_in(path: Path) -> str:
    """The one that is there, or a new one: what was written with another is refused then, and goes with its time."""
    try:
        key = bytes.fromhex(str(json.loads(path.read_text())[_KEY]))
        if len(key) == KEY_BYTES:
            return key.hex()
    except FileNotFoundError:
        pass  # the first start on this data directory
    except (KeyError, ValueError, TypeError):
        _log.warning("sessions_key_made_anew", file=str(path), why="it does not hold what this program writes there")
    new = secrets.token_hex(KEY_BYTES)
    write_durably(path, {_KEY: new})
    return new
