"""How large the pieces of prompts are, and whose turn it is."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from worker_orcd.engines.llama_cpp.chunk_size import SAFETY, ChunkSize
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.prompt_turns import Piece, PromptTurns

GAP_S = 0.2
LARGEST = 512
SMALLEST = 16


@dataclass
class Prompt:
    prefill_tokens: int
    evaluated: int = 0
    deterministic: bool = False
    last_turn: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)


def turns(tokens_per_s: float = 0.0) -> PromptTurns:
    chunk = ChunkSize(LARGEST, SMALLEST)
    if tokens_per_s:
        chunk.observe(0, 100, 100 / tokens_per_s)
    return PromptTurns(chunk, FixedChunks(32), GAP_S)


def next_piece(plan: PromptTurns, *prompts: Prompt, others_decode: bool) -> Piece | None:
    waiting = [cast("Any", prompt) for prompt in prompts if prompt.evaluated < prompt.prefill_tokens]
    return plan.next_piece(waiting, others_decode=others_decode)


def evaluate(plan: PromptTurns, piece: Piece | None, seconds: float) -> int:
    assert piece is not None
    piece.sequence.evaluated = piece.end
    plan.evaluated(piece, seconds)
    return piece.end - piece.begin


def test_nothing_is_known_at_first() -> None:
    assert ChunkSize(LARGEST, SMALLEST).within(0, 10.0) == SMALLEST


def test_a_piece_takes_about_the_time_it_may() -> None:
    chunk = ChunkSize(LARGEST, SMALLEST)
    for _ in range(20):
        chunk.observe(0, 64, 64 / 400)
    assert chunk.within(0, GAP_S) == int(400 * GAP_S * SAFETY) // SMALLEST * SMALLEST
    assert chunk.within(0, None) == LARGEST
    assert chunk.within(0, 100.0) == LARGEST
    assert chunk.within(0, 0.001) == SMALLEST


def test_speed_falls_with_the_position() -> None:
    chunk = ChunkSize(LARGEST, SMALLEST)
    chunk.observe(0, 100, 0.1)
    expected = chunk.within(30_000, GAP_S)
    assert expected < chunk.within(0, GAP_S)
    chunk.observe(30_000, 100, 1.0)
    assert chunk.within(30_000, GAP_S) == SMALLEST
    assert chunk.within(0, GAP_S) > SMALLEST


def test_a_tiny_piece_says_nothing_about_the_speed() -> None:
    chunk = ChunkSize(LARGEST, SMALLEST)
    chunk.observe(0, 1, 1.0)
    assert chunk.within(0, GAP_S) == SMALLEST


def test_with_no_run_decoding_pieces_are_full() -> None:
    prompt = Prompt(1200)
    plan = turns(400)
    pieces = [evaluate(plan, next_piece(plan, prompt, others_decode=False), 1.0) for _ in range(3)]
    assert pieces == [512, 512, 176]


@pytest.mark.req("WORK-3002")
def test_a_long_prompt_lets_those_who_decode_have_every_second_turn() -> None:
    prompt = Prompt(4000)
    plan = turns(400)
    assert evaluate(plan, next_piece(plan, prompt, others_decode=True), 0.16) == 64
    assert next_piece(plan, prompt, others_decode=True) is None
    plan.decoded()
    assert next_piece(plan, prompt, others_decode=True) is not None


def test_short_prompts_share_the_time_between_two_tokens() -> None:
    prompts = [Prompt(20) for _ in range(8)]
    plan = turns(1000)
    taken = 0
    while (piece := next_piece(plan, *prompts, others_decode=True)) is not None:
        evaluate(plan, piece, 0.02)
        taken += 1
    assert 5 <= taken <= 10
    plan.decoded()
    while (piece := next_piece(plan, *prompts, others_decode=True)) is not None:
        evaluate(plan, piece, 0.02)
    assert all(prompt.evaluated == 20 for prompt in prompts)


def test_prompts_take_turns() -> None:
    long, short = Prompt(5000), Prompt(30)
    plan = turns(400)
    order = []
    for _ in range(4):
        piece = next_piece(plan, long, short, others_decode=False)
        evaluate(plan, piece, 0.1)
        order.append(cast("Any", piece).sequence is long)
    assert order == [True, False, True, True]


def test_the_chunks_of_a_deterministic_prompt_are_fixed() -> None:
    prompt = Prompt(70, deterministic=True)
    plan = turns(1_000_000)
    sizes = []
    while (piece := next_piece(plan, prompt, others_decode=False)) is not None:
        sizes.append(evaluate(plan, piece, 0.001))
    assert sizes == [32, 32, 6]
