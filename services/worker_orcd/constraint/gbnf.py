"""From GBNF, the grammars of llama.cpp, to the notation of the matcher. Pure.

The matcher cuts text into lexemes, the longest first; GBNF knows characters only. Every lexeme here is a single
character, so that both accept the same texts. Groups become rules of their own, so that what is nested deep in a
grammar is not nested in its translation.
"""

import re
from collections.abc import Iterator

from llorch.options.generation import MAX_CONSTRAINT_NESTING
from worker_orcd.constraint.gbnf_characters import class_term, literal_terms
from worker_orcd.constraint.gbnf_tokens import GbnfError, Kind, Token, gbnf_tokens

ROOT = "root"
MAX_REPETITION = 2000
MAX_RULES = 1000
"""Rules and groups together: the matcher follows chains of them on its stack."""

_NOTHING = '""'
_NUMBER = re.compile("[0-9]+")


def lark_from_gbnf(text: str) -> str:
    """Raises GbnfError."""
    return _Translation(gbnf_tokens(text)).lark()


class _Translation:
    """Reads rules one after the other; groups that are open are kept on a stack of our own."""

    def __init__(self, tokens: Iterator[Token]) -> None:
        self._numbers: dict[str, int] = {}
        self._mentioned: dict[str, int] = {}
        self._bodies: dict[int, list[list[str]]] = {}
        self._open: list[int] = []
        self._read(tokens)
        for name, line in self._mentioned.items():
            if self._numbers[name] not in self._bodies:
                raise GbnfError(f"line {line}: there is no rule {name}")
        if self._numbers.get(ROOT) not in self._bodies:
            raise GbnfError(f"there is no rule {ROOT}")

    def lark(self) -> str:
        rules = [f"start: r{self._numbers[ROOT]}"]
        for number, alternatives in self._bodies.items():
            rules.append(f"r{number}: {' | '.join(' '.join(terms) or _NOTHING for terms in alternatives)}")
        return "\n".join(rules) + "\n"

    def _read(self, tokens: Iterator[Token]) -> None:
        for token in tokens:
            if token.kind in (Kind.RULE, Kind.END):
                self._close_rule(token)
                if token.kind is Kind.RULE:
                    self._begin_rule(token)
            elif not self._open:
                raise GbnfError(f"line {token.line}: a rule begins with its name and ::=")
            else:
                self._read_in_rule(token)

    def _read_in_rule(self, token: Token) -> None:
        if token.kind is Kind.OPEN:
            self._open_group(token)
        elif token.kind is Kind.CLOSE:
            self._close_group(token)
        elif token.kind is Kind.OR:
            self._bodies[self._open[-1]].append([])
        elif token.kind is Kind.COUNT:
            self._count(token)
        else:
            self._terms.append(self._term(token))

    def _term(self, token: Token) -> str:
        if token.kind is Kind.CLASS:
            return class_term(token)
        if token.kind is Kind.NAME:
            self._mentioned.setdefault(token.text, token.line)
            return f"r{self._number(token.text, token)}"
        characters = literal_terms(token)
        if len(characters) == 1:
            return characters[0]
        return f"({' '.join(characters)})" if characters else _NOTHING

    @property
    def _terms(self) -> list[str]:
        return self._bodies[self._open[-1]][-1]

    def _begin_rule(self, token: Token) -> None:
        number = self._number(token.text.removesuffix("::=").strip(), token)
        if number in self._bodies:
            raise GbnfError(f"line {token.line}: this rule is there already")
        self._bodies[number] = [[]]
        self._open = [number]

    def _close_rule(self, token: Token) -> None:
        if len(self._open) > 1:
            raise GbnfError(f"line {token.line}: a group is not closed")

    def _open_group(self, token: Token) -> None:
        if len(self._open) > MAX_CONSTRAINT_NESTING:
            raise GbnfError(f"line {token.line}: groups are nested more than {MAX_CONSTRAINT_NESTING} deep")
        number = self._number(f"({len(self._numbers)}", token)
        self._terms.append(f"r{number}")
        self._bodies[number] = [[]]
        self._open.append(number)

    def _close_group(self, token: Token) -> None:
        if len(self._open) == 1:
            raise GbnfError(f"line {token.line}: there is no group to close")
        self._open.pop()

    def _count(self, token: Token) -> None:
        if not self._terms:
            raise GbnfError(f"line {token.line}: there is nothing before {token.text} to repeat")
        if any(int(number) > MAX_REPETITION for number in _NUMBER.findall(token.text)):
            raise GbnfError(f"line {token.line}: {token.text} is more often than {MAX_REPETITION} times")
        term = self._terms.pop()
        if term[-1] in "*+?}":
            term = f"({term})"
        self._terms.append(term if term == _NOTHING else term + "".join(token.text.split()))

    def _number(self, name: str, token: Token) -> int:
        number = self._numbers.setdefault(name, len(self._numbers))
        if number >= MAX_RULES:
            raise GbnfError(f"line {token.line}: there are more than {MAX_RULES} rules and groups")
        return number
