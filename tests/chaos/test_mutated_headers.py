"""Model files that were damaged, or made to do damage: each is read or refused, soon, and nothing else happens.

`make chaos` runs 100,000 of them; LLORCH_TEST_MUTATIONS says another number. A failure prints the number of the
mutation, which repeats it.
"""

import io
import os
import random
import struct
import time
from collections import Counter

import pytest

from llorch.gguf.cursor import Malformed
from llorch.gguf.facts import read_facts, split_of
from llorch.gguf.header import read_header
from llorch.gguf.memory_estimate import LoadShape, estimate
from support.gguf_writer import Hollow, header_bytes
from support.tiny_models import ARCHITECTURES, tiny_model

MUTATIONS = int(os.environ.get("LLORCH_TEST_MUTATIONS", "2000"))
MOST_MS = 100.0

# What breaks readers: the ends of ranges, values that overflow when they are multiplied or padded, and small lies.
TELLING = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    12,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
]


def originals() -> list[tuple[bytes, int]]:
    """Headers of every architecture, and the sizes that their files have."""
    found = []
    for architecture in sorted(ARCHITECTURES):
        metadata, tensors = tiny_model(architecture)
        hollow = {name: Hollow(data.shape, "f32") for name, data in tensors.items()}
        head = header_bytes(metadata, hollow)
        found.append((head, len(head) + sum(data.size_bytes + 32 for data in hollow.values())))
    return found


def mutated(rng: random.Random, head: bytes) -> bytes:
    """One to four changes; most where headers are dense with counts, lengths and types."""
    content = bytearray(head)
    for _ in range(rng.randint(1, 4)):
        position = min(len(content) - 1, int(rng.random() ** rng.choice((1, 1, 3)) * len(content)))
        match rng.randrange(6):
            case 0:
                content[position] ^= 1 << rng.randrange(8)
            case 1:
                content[position] = rng.randrange(256)
            case 2:
                form = rng.choice(("<Q", "<I"))
                value = rng.choice(TELLING) % (1 << (8 * struct.calcsize(form)))
                content[position : position + struct.calcsize(form)] = struct.pack(form, value)
            case 3:
                del content[position:]
                content += b"\0"
            case 4:
                del content[position : position + rng.randint(1, 16)]
                content += b"\0"
            case 5:
                other = rng.randrange(len(content))
                content[position:position] = content[other : other + rng.randint(1, 64)]
    return bytes(content)


def look_at(content: bytes, size: int) -> str:
    """Everything that is done with a header. Anything but Malformed is a crash."""
    try:
        header = read_header(io.BytesIO(content), size)
        split_of(header)
        facts = read_facts([header])
        total = estimate(facts, LoadShape(slots=4, context_per_slot=4096)).total
    except Malformed as error:
        return "refused" if len(str(error)) < 500 else "refused with the whole file"
    assert total >= 0
    return "read"


@pytest.mark.timeout(1800)
def test_no_mutation_of_a_header_crashes_or_hangs_the_parser() -> None:
    seeds = originals()
    outcomes: Counter[str] = Counter()
    slowest_ms = 0.0
    for number in range(MUTATIONS):
        rng = random.Random(number)  # noqa: S311  it has to be repeatable
        head, size = rng.choice(seeds)
        content = mutated(rng, head)
        size = max(len(content), size) if rng.random() < 0.8 else len(content)
        began = time.thread_time()
        try:
            outcomes[look_at(content, size)] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} crashed the parser") from error
        slowest_ms = max(slowest_ms, (time.thread_time() - began) * 1000)
    assert outcomes["read"] + outcomes["refused"] == MUTATIONS
    assert outcomes["read"] > MUTATIONS // 100, "mutations that destroy everything prove nothing"
    assert outcomes["refused"] > MUTATIONS // 4
    assert slowest_ms <= MOST_MS, f"{slowest_ms:.0f} ms"
