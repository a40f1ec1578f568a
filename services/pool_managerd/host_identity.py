"""Which host this is, whatever it is called: an id that is made once and kept in the data folder."""

import json
from pathlib import Path

from llorch.errors import FailedPrecondition, LlorchError, Reason
from llorch.identifiers import check_id, new_id
from pool_managerd.durable_file import write_durably

_KEY = "host_id"
"""This name stays: the next release reads it."""


def host_id_in(path: Path) -> str:
    """Raises `FailedPrecondition` for a file that this program has not written so."""
    try:
        return check_id(json.loads(path.read_text())[_KEY], _KEY)
    except FileNotFoundError:
        made = new_id("host")
        write_durably(path, {_KEY: made})
        return made
    except (KeyError, TypeError, ValueError, LlorchError) as error:
        raise FailedPrecondition(
            Reason.STORE_FAILED, f"{path} does not hold what this program writes there; remove it and start again"
        ) from error
