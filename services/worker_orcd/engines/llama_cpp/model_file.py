"""A look at a model's file before native code sees it, which aborts on some of what a file may say; and after that."""

from pathlib import Path

from llorch.errors import FailedPrecondition, Reason
from llorch.file_identity import identity_of
from llorch.gguf.model_file import read_model
from llorch.gguf.split_name import split_name


def check_model_file(path: Path) -> None:
    """Refuses what is no model, and models that generate no text; names the file and what was found in it."""
    facts = read_model(path)
    if not facts.generates:
        raise FailedPrecondition(
            Reason.MODEL_LOAD_FAILED,
            f"{path.name}: {facts.architecture} models do not generate text, and this engine loads only those that do",
        )


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
