"""Which calls and chunks a deterministic run takes."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from worker_orcd.engines.llama_cpp.determinism import FixedChunks, calls


@dataclass(frozen=True)
class Runner:
    slot: int
    deterministic: bool


sizes = st.integers(1, 64)
lengths = st.integers(1, 500)


@given(st.lists(st.booleans(), max_size=12))
def test_a_deterministic_sequence_is_alone_in_its_call(kinds: list[bool]) -> None:
    sequences = [Runner(slot, kind) for slot, kind in enumerate(kinds)]
    together = list(calls(sequences))
    assert sorted((one for call in together for one in call), key=lambda one: one.slot) == sequences
    for call in together:
        assert len(call) == 1 or not any(one.deterministic for one in call)
    assert sum(not call[0].deterministic for call in together) <= 1


@given(sizes, lengths, st.integers(0, 40))
def test_chunks_lie_at_the_same_positions_wherever_a_prompt_is_taken_up(size: int, prompt: int, skipped: int) -> None:
    chunks = FixedChunks(size)
    whole = chunk_ends(chunks, 0, prompt)
    begin = chunks.reusable(prompt, skipped * size, prompt)
    assert chunk_ends(chunks, begin, prompt) == [end for end in whole if end > begin]
    assert all(end % size == 0 for end in whole[:-1])


@given(sizes, lengths)
def test_the_watermark_counts_whole_chunks_without_a_gap(size: int, prompt: int) -> None:
    chunks = FixedChunks(size)
    watermark = begin = 0
    for end in chunk_ends(chunks, 0, prompt):
        watermark = chunks.watermark(watermark, begin, end)
        begin = end
    assert watermark == prompt // size * size
    assert chunks.watermark(0, size, 2 * size) == 0, "what lies before it was not evaluated so"
    assert chunks.watermark(size, 0, size) == size, "evaluating the same again changes nothing"


@given(sizes, lengths, lengths, lengths)
def test_only_whole_chunks_are_kept_and_the_last_token_is_evaluated(
    size: int, common: int, watermark: int, prompt: int
) -> None:
    kept = FixedChunks(size).reusable(common, watermark, prompt)
    assert kept % size == 0
    assert kept <= min(common, watermark)
    assert kept < prompt


def chunk_ends(chunks: FixedChunks, begin: int, prompt: int) -> list[int]:
    ends = []
    while begin < prompt:
        begin = chunks.end(begin, prompt)
        ends.append(begin)
    return ends
