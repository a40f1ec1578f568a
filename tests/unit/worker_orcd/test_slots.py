"""Which slot a run gets, what it finds there, and what is kept of those that had to leave."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker_orcd.engines.llama_cpp.host_cache import HostCache, SavedSequence, State
from worker_orcd.engines.llama_cpp.memory_kind import MemoryKind
from worker_orcd.engines.llama_cpp.slots import Kept, Placement, Slot, Slots, common_prefix

CONTEXT = 4096


def fill(slots: Slots, number: int, tokens: list[int], *, busy: bool = False) -> Slot:
    slot = slots[number]
    slots.take(slot, Kept(tokens, len(tokens)))
    if not busy:
        slots.release(slot)
    return slot


def choose(slots: Slots, tokens: list[int]) -> Placement:
    return slots.choose(lambda slot: common_prefix(slot.tokens, tokens, min(slot.held, len(tokens) - 1)))


@given(st.lists(st.integers(0, 3), max_size=600), st.lists(st.integers(0, 3), max_size=600), st.integers(-1, 700))
def test_the_common_prefix_is_the_longest(one: list[int], other: list[int], limit: int) -> None:
    count = common_prefix(one, other, limit)
    assert one[:count] == other[:count]
    assert count <= max(limit, 0)
    ends = count in (len(one), len(other)) or count == max(limit, 0)
    assert ends or one[count] != other[count]


def test_a_new_conversation_gets_the_lowest_empty_slot() -> None:
    slots = Slots(3, CONTEXT)
    fill(slots, 0, list(range(100)))
    assert choose(slots, [7] * 50) == Placement(slots[1], slots[1], 0)


def test_the_next_turn_goes_where_the_conversation_is() -> None:
    slots = Slots(3, CONTEXT)
    fill(slots, 2, list(range(1000)))
    placement = choose(slots, [*range(1000), 5, 6, 7])
    assert placement == Placement(slots[2], slots[2], 1000)
    assert not placement.loses


def test_a_token_is_left_to_evaluate() -> None:
    slots = Slots(1, CONTEXT)
    fill(slots, 0, list(range(100)))
    assert choose(slots, list(range(100))).reused == 99


def test_without_anything_in_common_the_one_used_longest_ago_has_to_go() -> None:
    slots = Slots(3, CONTEXT)
    for number in (1, 2, 0):
        fill(slots, number, [number] * 200)
    placement = choose(slots, [9] * 50)
    assert placement.slot is slots[1]
    assert placement.loses


def test_a_common_beginning_of_two_conversations_is_copied() -> None:
    slots = Slots(3, CONTEXT)
    fill(slots, 0, [1] * 500 + [2] * 500)
    assert choose(slots, [1] * 500 + [3] * 10) == Placement(slots[1], slots[0], 500)


def test_a_prompt_that_is_being_answered_is_copied_for_the_next_one() -> None:
    slots = Slots(2, CONTEXT)
    fill(slots, 0, [1] * 500, busy=True)
    assert choose(slots, [1] * 400 + [3] * 10) == Placement(slots[1], slots[0], 400)


def test_copying_a_slot_for_a_few_tokens_does_not_pay() -> None:
    slots = Slots(2, CONTEXT)
    fill(slots, 0, [1] * 500, busy=True)
    assert choose(slots, [1] * 20 + [3] * 10) == Placement(slots[1], slots[1], 0)


def test_the_last_free_slot_is_cut_rather_than_emptied() -> None:
    slots = Slots(2, CONTEXT)
    fill(slots, 0, [9] * 10, busy=True)
    fill(slots, 1, [1] * 500)
    placement = choose(slots, [1] * 300 + [3] * 10)
    assert placement == Placement(slots[1], slots[1], 300)
    assert placement.loses


def test_what_was_not_evaluated_is_not_kept() -> None:
    slots = Slots(1, CONTEXT)
    slots.take(slots[0], Kept([1] * 100, 60))
    slots.release(slots[0])
    assert choose(slots, [1] * 100).reused == 60


def test_a_memory_that_can_be_cut_keeps_what_is_wanted() -> None:
    assert MemoryKind().usable(100, 60, 0) == 60


def test_a_recurrent_memory_keeps_all_or_nothing() -> None:
    kind = MemoryKind(trims=False)
    assert (kind.usable(100, 100, 99), kind.usable(100, 99, 99)) == (100, 0)


def test_a_windowed_memory_can_be_cut_while_the_window_is_there() -> None:
    kind = MemoryKind(window=50)
    assert kind.usable(200, 180, 100) == 180
    assert kind.usable(200, 140, 100) == 0
    assert kind.usable(40, 20, 0) == 20


def test_a_saved_state_of_a_windowed_memory_has_the_window_only() -> None:
    kind = MemoryKind(window=50)
    assert (kind.first_of_state(200, 100), kind.first_of_state(40, 0)) == (150, 0)
    assert kind.usable(200, 180, kind.first_of_state(200, 100)) == 0
    assert kind.usable(200, 200, kind.first_of_state(200, 100)) == 200
    assert MemoryKind().first_of_state(200, 0) == 0


def state(size: int, value: int = 1) -> State:
    return np.full(size, value, np.uint8)


def cache(budget: int = 100_000) -> HostCache:
    return HostCache(budget, "m")


def found(host: HostCache, tokens: list[int]) -> int:
    result = host.find(lambda saved: common_prefix(saved.tokens, tokens, len(tokens)))
    return result[1] if result else 0


def test_what_was_saved_is_found_by_its_longest_prefix() -> None:
    host = cache()
    host.add(SavedSequence([1, 2, 3, 4], state(10), 0, 0))
    host.add(SavedSequence([1, 2, 9, 9], state(10), 0, 0))
    assert found(host, [1, 2, 3, 5]) == 3
    assert found(host, [7]) == 0


def test_what_continues_a_saved_one_takes_its_place() -> None:
    host = cache()
    host.add(SavedSequence([1, 2], state(10), 0, 0))
    host.add(SavedSequence([1, 2, 3], state(10), 0, 0))
    assert len(host) == 1
    assert not host.wants([1, 2, 3], 10)
    assert host.wants([1, 2, 3, 4], 10)


def test_the_budget_holds_and_the_longest_unwanted_goes() -> None:
    host = cache(1000)
    host.add(SavedSequence([1], state(400), 0, 0))
    host.add(SavedSequence([2], state(400), 0, 0))
    wanted = host.find(lambda saved: int(saved.tokens == [1]))
    assert wanted is not None
    host.want(wanted[0])
    host.add(SavedSequence([3], state(400), 0, 0))
    assert host.used_bytes <= 1000
    assert (found(host, [1]), found(host, [2]), found(host, [3])) == (1, 0, 1)
    assert not host.wants([4], 1000)


def test_no_budget_keeps_nothing() -> None:
    host = cache(0)
    assert not host.wants([1], 1)
    host.add(SavedSequence([1], state(1), 0, 0))
    assert len(host) == 0


def test_a_damaged_state_is_recognised() -> None:
    host = cache()
    host.add(SavedSequence([1], state(100), 0, 0))
    hit = host.find(lambda saved: 1)
    assert hit is not None
    assert host.is_intact(hit[0])
    hit[0].state[50] ^= 1
    assert not host.is_intact(hit[0])


def test_a_state_of_another_model_is_not_intact() -> None:
    saved = cache()
    saved.add(SavedSequence([1], state(100), 0, 0))
    hit = saved.find(lambda entry: 1)
    assert hit is not None
    assert not HostCache(1000, "another").is_intact(hit[0])
