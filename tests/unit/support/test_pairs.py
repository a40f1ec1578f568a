"""Pairs that are spread over both sides."""

import pytest

from support.pairs import spread


@pytest.mark.parametrize(("left", "right"), [(10, 7), (6, 4), (4, 4), (1, 3)])
def test_all_of_them_are_all_pairs_once(left: int, right: int) -> None:
    pairs = spread(range(left), range(right), 1000)
    assert sorted(pairs) == [(a, b) for a in range(left) for b in range(right)]


def test_few_of_them_have_as_many_of_each_side_as_there_can_be() -> None:
    pairs = spread(range(10), range(7), 7)
    assert [len(set(side)) for side in zip(*pairs, strict=True)] == [7, 7]
