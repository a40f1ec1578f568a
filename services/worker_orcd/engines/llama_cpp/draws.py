"""The randomness of a token depends on what it is, not on what came before it. Pure.

So a run that resumes elsewhere draws what it would have drawn, and nothing has to be carried along.
"""

from enum import Enum
from hashlib import blake2b
from struct import pack

PROFILE = 2
"""Version of this keying and of the order of the sampler chain (see `sampler_chain`); grows with every change of
either.
"""

_MEANS_RANDOM = 0xFFFFFFFF
"""llama.cpp takes this seed as "choose one yourself"."""


class Purpose(Enum):
    """What a draw is for: draws for different purposes must have nothing to do with each other."""

    TOKEN = b""
    XTC = b"xtc"


def draw_seed(seed: int, choice: int, index: int, draw: int = 0, purpose: Purpose = Purpose.TOKEN) -> int:
    """The 32-bit seed for draw number `draw` of the token at output index `index`; `seed` has 64 bits.

    A draw that the output's constraint rejects is followed by another one: had it the same number, what was
    rejected would weigh on what is picked instead.
    """
    key = pack("<QIQI", seed, choice, index, draw)
    value = int.from_bytes(blake2b(key, digest_size=4, person=purpose.value).digest(), "little")
    return 0 if value == _MEANS_RANDOM else value
