"""The output of the simulated engine: token i of a choice is a hash of (seed, choice, i). Pure.

So a test that knows the seed can check any stream, from any index, across any number of workers.
"""

from hashlib import blake2b
from math import hypot
from struct import pack
from typing import NamedTuple

VOCABULARY_SIZE = 4096
EMBEDDING_WIDTH = 16
_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeoü"


class SimToken(NamedTuple):
    token_id: int
    text: str


def sim_token(seed: int, choice: int, index: int) -> SimToken:
    """One token: a made-up word of two syllables with a space before it."""
    digest = blake2b(pack("<QIQ", seed, choice, index), digest_size=2).digest()
    token_id = int.from_bytes(digest, "little") % VOCABULARY_SIZE
    return SimToken(token_id, f" {_syllable(token_id >> 6)}{_syllable(token_id & 63)}")


def sim_tokens(seed: int, choice: int, n: int) -> list[SimToken]:
    """The first n tokens of a choice."""
    return [sim_token(seed, choice, index) for index in range(n)]


def sim_text(seed: int, choice: int, n: int) -> str:
    """The text of the first n tokens of a choice."""
    return "".join(token.text for token in sim_tokens(seed, choice, n))


def sim_prompt_tokens(prompt: str) -> int:
    """Length of a prompt in simulated tokens: one per four bytes, at least one."""
    return max(1, (len(prompt.encode()) + 3) // 4)


def sim_prompt_pieces(text: str) -> list[bytes]:
    """What its tokens are: four bytes each, the last one fewer."""
    content = text.encode()
    return [content[begin : begin + 4] for begin in range(0, max(1, len(content)), 4)]


def sim_piece_id(piece: bytes) -> int:
    """The id of such a token. Pieces are more than ids, so that several have the same."""
    return int.from_bytes(blake2b(piece, digest_size=2).digest(), "little") % VOCABULARY_SIZE


def sim_embedding(text: str) -> list[float]:
    """A vector of length 1 that is a hash of the text."""
    digest = blake2b(text.encode(), digest_size=EMBEDDING_WIDTH).digest()
    numbers = [byte - 127.5 for byte in digest]
    length = hypot(*numbers)
    return [number / length for number in numbers]


def sim_score(query: str, document: str) -> float:
    """The share of the query's words that the document has."""
    words = query.lower().split()
    return sum(word in document.lower().split() for word in words) / max(len(words), 1)


def _syllable(number: int) -> str:
    return _CONSONANTS[number >> 2] + _VOWELS[number & 3]
