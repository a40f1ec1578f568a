"""Where a model comes from, as a person types it."""

import re
from pathlib import Path

from llorch.errors import invalid_field
from llorch.model_reference import GGUF_SUFFIX, SourceKind, parse_reference, shown

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def reference_of(source: str) -> str:
    """A path is a file of the machine that runs the model; anything with a scheme is a reference already.

    A relative path is meant from here, so the file has to be here: it is the one hint that the folder is right. Raises
    InvalidArgument, also for what can't be a reference, which is sent nowhere then.
    """
    if not source.strip():
        raise invalid_field("source", "is empty; give the path of a .gguf file, or hf:ORG/REPO:QUANTIZATION")
    scheme, colon, _ = source.partition(":")
    if colon and "/" not in scheme:
        parse_reference(source)
        return source
    path = Path(source).expanduser()
    if not path.is_absolute() and not path.is_file():
        raise invalid_field("source", _not_here(source))
    return f"{SourceKind.FILE}:{path.absolute()}"


def _not_here(source: str) -> str:
    hub = f"; a model of the Hugging Face Hub is hf:{source}:QUANTIZATION" if _is_hub_name(source) else ""
    return (
        f"there is no file {shown(source)} in {Path.cwd()}; for one of another machine give its whole path, such as "
        f"/srv/models/coder.gguf{hub}"
    )


def _is_hub_name(source: str) -> bool:
    return _HUB_NAME.fullmatch(source) is not None and not source.lower().endswith(GGUF_SUFFIX)
