"""The randomness of a token depends on what it is, not on what came before it. Pure.

So a run that resumes elsewhere draws what it would have drawn, and nothing has to be carried along.
"""

from hashlib import blake2b
from struct import pack

PROFILE = 1
"""Version of this keying and of the order of the sampler chain; grows with every change of either."""

_MEANS_RANDOM = 0xFFFFFFFF
"""llama.cpp takes this seed as "choose one yourself"."""


def draw_seed(seed: int, choice: int, index: int, draw: int = 0) -> int:
    """The 32-bit seed for draw number `draw` of the token at output index `index`; `seed` has 64 bits."""
    digest = blake2b(pack("<QIQI", seed, choice, index, draw), digest_size=4).digest()
    value = int.from_bytes(digest, "little")
    return 0 if value == _MEANS_RANDOM else value
