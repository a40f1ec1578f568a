"""A prompt on the command line, or from stdin."""

import sys

from llorch.errors import invalid_field


def said(prompt: str) -> str:
    """What `-` stands for is read from stdin."""
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise invalid_field("prompt", "what comes from stdin is not text in UTF-8") from error
