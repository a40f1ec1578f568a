"""Whether a model's files stay what they are while they are read."""

from pathlib import Path

from llorch.errors import FailedPrecondition, Reason
from llorch.file_identity import identity_of
from llorch.gguf.split_name import split_name


class UnchangedFiles:
    """The files of a model as they are when its load begins: what is read while they change is of two models."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._paths = _parts_of(path)
        self._states = [_state(part) for part in self._paths]

    def check(self) -> None:
        """Raises FailedPrecondition if they are not the same any more."""
        if [_state(part) for part in self._paths] != self._states:
            raise FailedPrecondition(
                Reason.MODEL_LOAD_FAILED, f"{self._name} was changed while it was loaded; load the model again"
            )


def _parts_of(path: Path) -> list[Path]:
    name = split_name(path.name)
    return [path.with_name(part) for part in name.all()] if name else [path]


def _state(path: Path) -> dict[str, int]:
    """Empty where there is no such file."""
    try:
        return identity_of(path.stat())
    except OSError:
        return {}
