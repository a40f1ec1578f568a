"""Long sentences for people, on terminals of 80 columns."""

import re
import textwrap

WIDTH = 80
_SHORT = 160  # characters
# "… on. Looked for: …": what a refusal says point by point, as `pool-managerd` does where there is no device.
_POINT = re.compile(r"(?<=\.) (?=[A-Z][a-z]+(?: [a-z]+){0,2}: )")
_CHOICE = re.compile(r"; (?=or )")


def in_lines(text: str) -> str:
    """A long text wrapped at words; a short one stays one line, easy to copy from. One that makes its points by name
    ("Found: …") gets a paragraph for each, and a line for each of its choices ("; or …").
    """
    if len(text) <= _SHORT:
        return text
    head, *points = _POINT.split(text)
    if not points:
        return _wrapped(head)
    return "\n".join((_wrapped(head), *(_point(point) for point in points)))


def _point(text: str) -> str:
    name, _, said = text.partition(": ")
    first, *choices = _CHOICE.split(said)
    lines = [_wrapped(f"{first};" if choices else first, "    ")]
    lines += [_wrapped(f"{choice};" if choice != choices[-1] else choice, "    ") for choice in choices]
    return "\n".join(("", f"  {name}:", *lines))


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
