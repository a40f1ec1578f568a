"""Text of a user that looks like a control token must not become one. Pure.

Before a template is rendered, every such text in what the user sent is replaced by a mark; afterwards the
marks show which parts of the result are to be taken literally. Text without any is not touched at all, so
that templates see, and tokens come out, as if nothing had been done.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker_orcd.text.stop_strings import held_from

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Noncharacters: reserved for use inside of a program, never for text."""

_END = _OPEN + _CLOSE
"""Where a text ends, wherever a template puts it. No text can hold this, since both characters are masked in texts."""

_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


@dataclass(frozen=True, slots=True)
class Part:
    """`literal`: no control token is to be recognised in this text."""

    text: str
    literal: bool


def with_end(masked: str) -> str:
    """Marks where the text ends, before white space that a template may cut off."""
    said = masked.rstrip()
    return said + _END + masked[len(said) :]


def up_to_end(rendered: str, masked: str) -> str | None:
    """What was rendered, up to the end of a text that has its end marked, in its last place. None if the text is not
    there as it was, but for the white space around it, which counts as far as the template has kept it.
    """
    before, end, after = rendered.rpartition(_END)
    said = masked.rstrip()
    white = masked[len(said) :]
    if not end or not before.endswith(said.lstrip()):
        return None
    return before.replace(_END, "") + (white if after.startswith(white) else "")


class Masking:
    def __init__(self, special_texts: Sequence[str]) -> None:
        self._texts = [_OPEN, _CLOSE, *sorted(special_texts, key=len, reverse=True)]
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self._special = re.compile("|".join(map(re.escape, self._texts)))

    def mask(self, text: str) -> str:
        return self._special.sub(lambda found: f"{_OPEN}{self._numbers[found.group()]}{_CLOSE}", text)

    def is_open(self, text: str) -> bool:
        """Whether what follows could make a control token of its end, with the white space between them or without."""
        return any(held_from(end, self._texts) < len(end) for end in (text, text.rstrip()))

    def mask_all(self, value: object) -> object:
        """Every text in a JSON value, the keys as well."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, list):
            return [self.mask_all(item) for item in value]
        if isinstance(value, dict):
            return {self.mask(str(key)): self.mask_all(item) for key, item in value.items()}
        return value

    def parts(self, rendered: str) -> Iterator[Part]:
        """What was rendered from masked text, in order, without empty parts."""
        at = 0
        for mark in _MARK.finditer(rendered):
            if mark.start() > at:
                yield Part(rendered[at : mark.start()], literal=False)
            yield Part(self._texts[int(mark.group(1))], literal=True)
            at = mark.end()
        if at < len(rendered):
            yield Part(rendered[at:], literal=False)
