"""What a draw depends on, and what it does not."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from worker_orcd.engines.llama_cpp.draws import FirstDraws, Purpose, draw_seed

seeds = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**20)
keys = st.tuples(seeds, small, small, small, st.sampled_from(Purpose))


@given(keys)
def test_a_draw_is_always_the_same_and_a_seed_that_llama_cpp_takes_as_one(
    key: tuple[int, int, int, int, Purpose],
) -> None:
    assert draw_seed(*key) == draw_seed(*key)
    assert 0 <= draw_seed(*key) < 0xFFFFFFFF


@given(keys, keys)
def test_draws_of_different_places_have_nothing_to_do_with_each_other(
    one: tuple[int, int, int, int, Purpose], other: tuple[int, int, int, int, Purpose]
) -> None:
    assert (draw_seed(*one) == draw_seed(*other)) == (one == other)


def test_draws_are_spread_evenly() -> None:
    highest_bits = Counter(draw_seed(7, 0, index) >> 29 for index in range(8000))
    assert all(850 < count < 1150 for count in highest_bits.values())


@given(seeds, small, st.lists(small, max_size=5))
def test_seeds_that_are_asked_for_in_turn_are_the_same(seed: int, choice: int, indices: list[int]) -> None:
    first = FirstDraws(seed, choice)
    for index in [*range(20), *indices]:
        assert first.seed(index) == draw_seed(seed, choice, index)
