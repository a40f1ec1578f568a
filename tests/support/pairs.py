"""Some of all pairs, spread over both sides."""

from collections.abc import Sequence
from math import lcm
from typing import TypeVar

Left = TypeVar("Left")
Right = TypeVar("Right")


def spread(left: Sequence[Left], right: Sequence[Right], count: int) -> list[tuple[Left, Right]]:
    """The first `count` pairs of an order in which each side is used up before anything of it comes again."""
    turns = lcm(len(left), len(right))
    return [
        (left[number % len(left)], right[(number + number // turns) % len(right)])
        for number in range(min(count, len(left) * len(right)))
    ]
