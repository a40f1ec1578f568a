"""What the keeper says that a slot has of a prompt, the slot has: over any sequence of runs, windows, and restores that
fail.
"""

from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from support.example_count import examples
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.host_cache import HostCache, State
from worker_orcd.engines.llama_cpp.memory_kind import MemoryKind
from worker_orcd.engines.llama_cpp.sequence import WaitingChoice
from worker_orcd.engines.llama_cpp.slot_keeper import SlotKeeper
from worker_orcd.engines.llama_cpp.slots import Slots
from worker_orcd.run_spec import RunSpec

SLOTS, CONTEXT = 3, 4096
_WIDTH = 8


@dataclass
class FakeContext:
    """Keeps token ids where the library keeps what it computed of them. `begins` is the first position of a slot that
    is still there; the slot itself keeps `spare` tokens more than its window, a saved state does not.
    """

    kind: MemoryKind
    spare: int = 100
    breaks: bool = False
    copies_pending: bool = False
    held: list[list[int]] = field(default_factory=lambda: [[] for _ in range(SLOTS)])
    begins: list[int] = field(default_factory=lambda: [0] * SLOTS)

    def evaluate(self, slot: int, tokens: list[int]) -> None:
        self.copies_pending = False
        self.held[slot] += tokens
        if self.kind.window:
            self.begins[slot] = max(self.begins[slot], len(self.held[slot]) - self.kind.window - self.spare)

    def forget(self, slot: int) -> None:
        self.held[slot], self.begins[slot] = [], 0

    def copy(self, source: int, target: int) -> None:
        self.held[target], self.begins[target] = list(self.held[source]), self.begins[source]
        self.copies_pending = True

    def trim(self, slot: int, keep: int) -> bool:
        if keep < len(self.held[slot]) and not self.kind.trims:
            return False
        del self.held[slot][keep:]
        return True

    def first_position(self, slot: int) -> int:
        return self.begins[slot] if self.held[slot] else -1

    def last_position(self, slot: int) -> int:
        return len(self.held[slot]) - 1

    def state_bytes(self, slot: int) -> int:
        return _WIDTH * (len(self.held[slot]) + 1)

    def save(self, slot: int) -> State | None:
        if self.copies_pending:
            return None
        begins = max(self.begins[slot], len(self.held[slot]) - self.kind.window) if self.kind.window else 0
        return np.array([begins, *self.held[slot]], np.int64).view(np.uint8)

    def restore(self, slot: int, state: State) -> bool:
        assert not self.copies_pending, "the library would read what it is about to overwrite"
        self.forget(slot)
        if self.breaks:
            return False
        self.begins[slot], *self.held[slot] = state.view(np.int64).tolist()
        return True


@dataclass
class Running:
    slot: int
    tokens: list[int]
    evaluated: int


class Engine:
    """Places runs and evaluates them, as the decode loop does."""

    def __init__(self, context: FakeContext, host_bytes: int = 2**20) -> None:
        self.context = context
        self.host = HostCache(host_bytes, "m")
        self.keeper = SlotKeeper(cast("Any", context), Slots(SLOTS, CONTEXT), self.host, FixedChunks(32))

    def begin(self, tokens: list[int]) -> Running:
        run = SimpleNamespace(spec=RunSpec(prompt="x"))
        choice = WaitingChoice(cast("Any", run), cast("Any", SimpleNamespace(tokens_in=len(tokens))), 0, tokens)
        number, reused = self.keeper.place(choice)
        assert self.context.held[number] == tokens[:reused], "it has the beginning of the prompt, and nothing else"
        if self.context.kind.window and reused:
            assert self.context.begins[number] <= max(0, reused - self.context.kind.window + 1), "the window is whole"
        running = Running(number, tokens, reused)
        self.keeper.take(cast("Any", running))
        return running

    def end(self, running: Running) -> None:
        self.context.evaluate(running.slot, running.tokens[running.evaluated :])
        running.evaluated = len(running.tokens)
        self.keeper.release(cast("Any", running))

    def run(self, tokens: list[int]) -> Running:
        running = self.begin(tokens)
        reused = running.evaluated
        self.end(running)
        return Running(running.slot, tokens, reused)


def prompt(chance: Random, known: list[list[int]]) -> list[int]:
    """A new one, or a known one that goes on, ends before, or has another middle."""
    tokens = list(chance.choice(known)) if known else []
    if len(tokens) < 20 or chance.random() < 0.3:
        return [chance.randrange(3) for _ in range(chance.randint(20, 400))]
    match chance.choice(("on", "cut", "change")):
        case "on":
            tokens += [chance.randrange(3) for _ in range(chance.randint(1, 60))]
        case "cut":
            del tokens[chance.randrange(1, len(tokens)) :]
        case "change":
            tokens[chance.randrange(len(tokens))] += 1
    return tokens


@pytest.mark.parametrize("kind", [MemoryKind(), MemoryKind(window=64), MemoryKind(trims=False)])
@pytest.mark.parametrize("seed", range(examples(40)))
def test_a_slot_has_what_the_keeper_says_that_it_has(kind: MemoryKind, seed: int) -> None:
    chance = Random(seed)  # noqa: S311  made up, not secret
    engine = Engine(FakeContext(kind, spare=chance.choice((0, 10, 100))), host_bytes=chance.choice((0, 20_000, 2**20)))
    known: list[list[int]] = []
    reused = 0
    for _ in range(60):
        engine.context.breaks = chance.random() < 0.2
        begun = [engine.begin(prompt(chance, known)) for _ in range(chance.randint(1, SLOTS))]
        reused += sum(running.evaluated for running in begun)
        for running in begun:
            engine.end(running)
        known = [*known, *(running.tokens for running in begun)][-12:]
    assert reused > 0


def test_what_can_not_be_restored_now_is_kept_for_later() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    wanted = [7] * 200
    engine.run(wanted)
    for number in range(SLOTS):
        engine.run([number] * 300)
    assert len(engine.host) == 1
    begun = [engine.begin([2] * 300 + [3]), engine.begin([2] * 300 + [4])]
    assert engine.context.copies_pending
    assert engine.begin(wanted).evaluated == 0
    assert len(engine.host) >= 1
    for running in begun:
        engine.end(running)
    assert engine.run([*wanted, 1]).evaluated == 200


def test_a_state_that_can_not_be_read_is_dropped_and_the_prompt_evaluated() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    wanted = [7] * 200
    engine.run(wanted)
    for number in range(SLOTS):
        engine.run([number] * 300)
    engine.context.breaks = True
    assert engine.run([*wanted, 1]).evaluated == 0
    assert not any(saved.tokens == wanted for saved in engine.host._saved)
