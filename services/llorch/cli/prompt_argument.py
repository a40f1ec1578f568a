"""A prompt on the command line, or from stdin."""

import sys

from llorch.errors import invalid_field


def said(prompt: str, *, alone: bool = True) -> str:
    """What `-` stands for is read from stdin. `alone`: no other text goes with it, so it may not be empty."""
    text = prompt if prompt != "-" else _read()
    if alone and not text:
        where = "what comes from stdin is empty" if prompt == "-" else "is empty"
        raise invalid_field("prompt", f"{where}; say what to ask, or - to read it from stdin")
    return text


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise invalid_field("prompt", "what comes from stdin is not text in UTF-8") from error
