"""Which host this is, whatever it is called: an id that is made once and kept in the data folder."""

import json
from pathlib import Path

from llorch.errors import FailedPrecondition, LlorchError, Reason
from llorch.identifiers import check_id, new_id
from llorch.logs import get_logger
from pool_managerd.durable_file import write_durably

_KEY = "host_id"
"""This name stays: the next release reads it."""

_WHEN_NOT_KEPT = (
    "make room on the disk of data_dir, and let this user write there; the id is made when the node registers next. "
    "Until then this host counts as another machine under another node_id"
)
_log = get_logger(__name__)


class HostIdentity:
    """Raises `FailedPrecondition` for a file that this program has not written so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = _read(path)
        self._is_told = False

    def host_id(self) -> str:
        """Blocks where it is made. Empty until the disk has it: an id that the next start does not know would make
        this host another one, and its node one that the orchestrator has not commanded yet.
        """
        return self._kept or self._make()

    def _make(self) -> str:
        made = new_id("host")
        try:
            write_durably(self._path, {_KEY: made})
        except OSError as error:
            if not self._is_told:
                _log.error("host_id_not_kept", file=str(self._path), why=error.strerror, what_to_do=_WHEN_NOT_KEPT)
            self._is_told = True
            return ""
        self._kept = made
        return made


def _read(path: Path) -> str:
    try:
        return check_id(json.loads(path.read_text())[_KEY], _KEY)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise FailedPrecondition(Reason.STORE_FAILED, f"{path} can't be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, LlorchError) as error:
        raise FailedPrecondition(
            Reason.STORE_FAILED, f"{path} does not hold what this program writes there; remove it and start again"
        ) from error
