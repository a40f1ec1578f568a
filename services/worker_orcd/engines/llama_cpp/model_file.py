"""A look at a model's file before native code gets to see it, which aborts on some of what a file may say."""

from pathlib import Path

from llorch.errors import FailedPrecondition, Reason
from llorch.gguf.model_file import read_model


def check_model_file(path: Path) -> None:
    """Refuses what is no model, and models that generate no text; names the file and what was found in it."""
    facts = read_model(path)
    if not facts.generates:
        raise FailedPrecondition(
            Reason.MODEL_LOAD_FAILED,
            f"{path.name}: {facts.architecture} models do not generate text, and this engine loads only those that do",
        )
