"""Literals and character classes of GBNF, as regular expressions for single characters. Pure."""

import re
from collections.abc import Iterator

from worker_orcd.constraint.gbnf_tokens import GbnfError, Token

_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-", "^": "^"}
_CODES = {"x": 2, "u": 4, "U": 8}
_CODE = re.compile("[0-9A-Fa-f]+")
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

ANY_CHARACTER = rf"/[\x{{0}}-\x{{{_LAST:x}}}]/"


def literal_terms(token: Token) -> list[str]:
    """One term per character."""
    return [f"/{_code(code)}/" for code, _ in _codes(token.text[1:-1], token)]


def class_term(token: Token) -> str:
    if token.text == ".":
        return ANY_CHARACTER
    negated = token.text.startswith("[^")
    codes = list(_codes(token.text[2 if negated else 1 : -1], token))
    if not codes:
        raise GbnfError(f"line {token.line}: {token.text} has no characters")
    return f"/[{'^' if negated else ''}{''.join(_ranges(codes, token))}]/"


def _ranges(codes: list[tuple[int, bool]], token: Token) -> Iterator[str]:
    """`codes` are characters, each with whether it is a dash that can mean a range."""
    at = 0
    while at < len(codes):
        first = codes[at][0]
        if at + 2 < len(codes) and codes[at + 1][1]:
            last = codes[at + 2][0]
            if last < first:
                raise GbnfError(f"line {token.line}: a range in {token.text} ends before it begins")
            yield f"{_code(first)}-{_code(last)}"
            at += 3
        else:
            yield _code(first)
            at += 1


def _codes(text: str, token: Token) -> Iterator[tuple[int, bool]]:
    at = 0
    while at < len(text):
        if text[at] != "\\":
            yield ord(text[at]), text[at] == "-"
            at += 1
            continue
        letter = text[at + 1]
        digits = _CODES.get(letter, 0)
        if digits:
            yield _escaped_code(text[at + 2 : at + 2 + digits], digits, token), False
        elif letter in _ESCAPES:
            yield ord(_ESCAPES[letter]), False
        else:
            raise GbnfError(f"line {token.line}: the escape \\{letter} is not known")
        at += 2 + digits


def _escaped_code(text: str, digits: int, token: Token) -> int:
    if len(text) != digits or not _CODE.fullmatch(text):
        raise GbnfError(f"line {token.line}: an escape needs {digits} hexadecimal digits, not {text!r}")
    code = int(text, 16)
    if code > _LAST or code in _SURROGATES:
        raise GbnfError(f"line {token.line}: {text} is not a character")
    return code


def _code(code: int) -> str:
    return rf"\x{{{code:x}}}"
