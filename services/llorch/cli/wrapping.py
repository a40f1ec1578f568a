"""Long sentences for people, on terminals of 80 columns."""

import textwrap

WIDTH = 80
_SHORT = 160  # characters


def in_lines(text: str) -> str:
    """A long line wrapped at words; a short one stays one line, easy to copy from.

    A text of several lines is a refusal with named points, as that of `pool-managerd` where there is no device: each
    line after the first is "Name: text" and gets a paragraph, or is indented and continues the paragraph before in a
    line of its own.
    """
    head, *lines = text.split("\n")
    if lines:
        return "\n".join((_wrapped(head), *map(_point, lines)))
    return text if len(text) <= _SHORT else _wrapped(text)


def _point(line: str) -> str:
    if line.startswith(" "):
        return _wrapped(line.strip(), "    ")
    name, _, said = line.partition(": ")
    return "\n".join(("", f"  {name}:", _wrapped(said, "    ")))


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
