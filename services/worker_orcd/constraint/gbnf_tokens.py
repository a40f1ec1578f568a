"""The words of a GBNF grammar. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


class GbnfError(ValueError):
    """What is wrong with a grammar, and in which line."""


class Kind(Enum):
    RULE = auto()
    """`name ::=`"""
    NAME = auto()
    LITERAL = auto()
    """Text in quotes."""
    CLASS = auto()
    """Characters in brackets, or the dot."""
    COUNT = auto()
    """How often what comes before may be there."""
    OPEN = auto()
    CLOSE = auto()
    OR = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    line: int


_WORDS = re.compile(
    r"""
    (?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<RULE>[A-Za-z][A-Za-z0-9_-]*[ \t]*::=)
    |(?P<NAME>[A-Za-z][A-Za-z0-9_-]*)
    |(?P<LITERAL>"(?:[^"\\\n]|\\.)*")
    |(?P<CLASS>\[(?:[^\]\\\n]|\\.)*\]|\.)
    |(?P<COUNT>[*+?]|\{\s*[0-9]{1,9}\s*(?:,\s*(?:[0-9]{1,9})?\s*)?\})
    |(?P<OPEN>\()
    |(?P<CLOSE>\))
    |(?P<OR>\|)
    """,
    re.VERBOSE,
)


def gbnf_tokens(text: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        word = _WORDS.match(text, at)
        if word is None:
            raise GbnfError(f"line {line}: {text[at : at + 20]!r} is not understood")
        name = word.lastgroup or ""
        if name != "space":
            yield Token(Kind[name], word.group(), line)
        line += word.group().count("\n")
        at = word.end()
    yield Token(Kind.END, "", line)
