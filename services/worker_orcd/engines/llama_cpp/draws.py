"""The randomness of a token depends on what it is, not on what came before it. Pure.

So a run that resumes elsewhere draws what it would have drawn, and nothing has to be carried along.
"""

from enum import Enum
from hashlib import blake2b
from struct import Struct

PROFILE = 3
"""Version of this keying and of the order of the sampler chain's stages (see `sampler_chain`). It grows with a change
of either; a further stage that is off by default changes none.
"""

_MEANS_RANDOM = 0xFFFFFFFF
"""llama.cpp takes this seed as "choose one yourself"."""


class Purpose(Enum):
    """What a draw is for: draws for different purposes must have nothing to do with each other."""

    TOKEN = b""
    XTC = b"xtc"


_KEY = Struct("<QIQI")
_BLOCK = Struct("<16I")
_BLOCK_SEEDS = 16
"""So many seeds come from one hash: their number per answer is that of its tokens."""


def draw_seed(seed: int, choice: int, index: int, draw: int = 0, purpose: Purpose = Purpose.TOKEN) -> int:
    """The 32-bit seed for draw number `draw` of the token at output index `index`; `seed` has 64 bits.

    A draw that the output's constraint rejects is followed by another one: had it the same number, what was
    rejected would weigh on what is picked instead.
    """
    return _block(seed, choice, index // _BLOCK_SEEDS, draw, purpose)[index % _BLOCK_SEEDS]


class FirstDraws:
    """`draw_seed` for draw 0 of a choice's tokens, which are asked for in order."""

    def __init__(self, seed: int, choice: int) -> None:
        self._seed = seed
        self._choice = choice
        self._number = -1
        self._seeds: tuple[int, ...] = ()

    def seed(self, index: int) -> int:
        number = index // _BLOCK_SEEDS
        if number != self._number:
            self._seeds = _block(self._seed, self._choice, number, 0, Purpose.TOKEN)
            self._number = number
        return self._seeds[index % _BLOCK_SEEDS]


def _block(seed: int, choice: int, number: int, draw: int, purpose: Purpose) -> tuple[int, ...]:
    """The seeds of block `number` of the output's indices."""
    key = _KEY.pack(seed, choice, number, draw)
    digest = blake2b(key, digest_size=_BLOCK.size, person=purpose.value).digest()
    return tuple(0 if value == _MEANS_RANDOM else value for value in _BLOCK.unpack(digest))
