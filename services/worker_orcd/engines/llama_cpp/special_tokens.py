"""Where the vocabulary's own tokens stand in a prompt that is not to be parsed for them everywhere. Pure.

The library either looks for control tokens in a whole text or in none of it. Cut into several calls, a text gives other
tokens: no merge reaches across a cut, and a vocabulary of SentencePiece puts a space before each piece. So the text is
cut here where the library itself cuts it, at special tokens and nowhere else, and the library gets what is between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker_orcd.engines.llama_cpp.masking import Part

_WHITE_SPACE = b" \t\n\v\f\r"
"""What the library takes for it beside a token."""


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """Found in a text before the rest is tokenized. One that is no `is_control` is found in literal text, too; one that
    `is_always_found` the library finds whether it looks for control tokens or not.

    `eats_before` and `eats_after`: white space beside it is dropped.
    """

    token_id: int
    text: bytes
    is_control: bool
    is_always_found: bool = False
    eats_before: bool = False
    eats_after: bool = False


Fragment = int | bytes
"""A special token's id, or text without any."""
_Span = tuple[int, int]


def fragments(parts: Sequence[Part], tokens: Sequence[SpecialToken]) -> list[Fragment]:
    """A text in pieces that are tokenized one by one. `tokens` are all of the vocabulary, the longest first: so they
    are looked for, one after the other, in what the ones before have left. A control token of which any character is
    to be taken literally is none; where the library would find it all the same, it is cut in two.
    """
    text = b"".join(part.text.encode() for part in parts)
    literal = _literal(parts)
    found: list[int | _Span] = [(0, len(text))] if text else []
    for token in tokens:
        if token.text in text:
            found = [piece for each in found for piece in _cut(text, each, token, literal)]
    in_two = [token.text for token in tokens if token.is_control and token.is_always_found and token.text in text]
    for spelled in in_two:
        found = [piece for each in found for piece in _cut_in_two(text, each, spelled)]
    return [each if isinstance(each, int) else text[slice(*each)] for each in found]


def _literal(parts: Sequence[Part]) -> bytes:
    """A 1 for each byte that is to be taken literally."""
    return b"".join(bytes([part.literal]) * len(part.text.encode()) for part in parts)


def _cut(text: bytes, piece: int | _Span, token: SpecialToken, literal: bytes) -> Iterator[int | _Span]:
    if isinstance(piece, int):
        yield piece
        return
    begin, end = piece
    while (at := _find(text, begin, end, token, literal)) >= 0:
        before = text[begin:at].rstrip(_WHITE_SPACE) if token.eats_before else text[begin:at]
        if before:
            yield begin, begin + len(before)
        yield token.token_id
        begin = at + len(token.text)
        if token.eats_after:
            begin = end - len(text[begin:end].lstrip(_WHITE_SPACE))
    if begin < end:
        yield begin, end


def _cut_in_two(text: bytes, piece: int | _Span, spelled: bytes) -> Iterator[int | _Span]:
    if isinstance(piece, int):
        yield piece
        return
    begin, end = piece
    while (at := text.find(spelled, begin, end)) >= 0:
        yield begin, at + 1
        begin = at + 1
    if begin < end:
        yield begin, end


def _find(text: bytes, begin: int, end: int, token: SpecialToken, literal: bytes) -> int:
    at = text.find(token.text, begin, end)
    while at >= 0 and token.is_control and any(literal[at : at + len(token.text)]):
        at = text.find(token.text, at + 1, end)
    return at
