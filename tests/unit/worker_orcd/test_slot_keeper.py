"""What the keeper says that a slot has of a prompt, the slot has: over any sequence of runs, windows, damaged states,
and workers that follow each other.
"""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from support.example_count import examples
from worker_orcd.engines.llama_cpp.context import RestoreFailed
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.host_cache import HostCache, SavedSequence, State
from worker_orcd.engines.llama_cpp.memory_kind import MemoryKind
from worker_orcd.engines.llama_cpp.sequence import WaitingChoice
from worker_orcd.engines.llama_cpp.session_file import SavedHead
from worker_orcd.engines.llama_cpp.slot_keeper import SlotKeeper
from worker_orcd.engines.llama_cpp.slots import MIN_REUSE, Slots
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

    def restore(self, slot: int, state: State, tokens: int) -> None:
        assert not self.copies_pending, "the library would read what it is about to overwrite"
        self.forget(slot)
        if self.breaks:
            raise RestoreFailed("as it was told to")
        self.begins[slot], *self.held[slot] = state.view(np.int64).tolist()
        assert len(self.held[slot]) == tokens


@dataclass
class Running:
    slot: int
    tokens: list[int]
    evaluated: int
    session: str = ""


class Engine:
    """Places runs and evaluates them, as the decode loop does."""

    def __init__(self, context: FakeContext, host_bytes: int = 2**20) -> None:
        self.context = context
        self.host = HostCache(host_bytes, "m")
        self.keeper = SlotKeeper(cast("Any", context), Slots(SLOTS, CONTEXT), self.host, FixedChunks(32))

    def begin(self, tokens: list[int], session: str = "") -> Running:
        number, reused = self.keeper.place(choice_of(tokens))
        assert self.context.held[number] == tokens[:reused], "it has the beginning of the prompt, and nothing else"
        if self.context.kind.window and reused:
            assert self.context.begins[number] <= max(0, reused - self.context.kind.window + 1), "the window is whole"
        running = Running(number, tokens, reused, session)
        self.keeper.take(cast("Any", running))
        return running

    def end(self, running: Running) -> None:
        self.context.evaluate(running.slot, running.tokens[running.evaluated :])
        running.evaluated = len(running.tokens)
        self.keeper.release(cast("Any", running))

    def run(self, tokens: list[int], session: str = "") -> Running:
        running = self.begin(tokens, session)
        reused = running.evaluated
        self.end(running)
        return Running(running.slot, tokens, reused)


def choice_of(tokens: list[int]) -> WaitingChoice:
    run = SimpleNamespace(spec=RunSpec(prompt="x"))
    return WaitingChoice(cast("Any", run), cast("Any", SimpleNamespace(tokens_in=len(tokens))), 0, tokens)


def head_of(saved: SavedSequence) -> SavedHead:
    return SavedHead(Path("a file"), saved.tokens, saved.first_position, saved.watermark, saved.state.nbytes, 0)


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
        for saved in engine.host._saved:
            if chance.random() < 0.2:
                saved.state[-1] ^= 1
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


def test_a_damaged_state_is_dropped_and_the_prompt_evaluated() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    wanted = [7] * 200
    engine.run(wanted)
    for number in range(SLOTS):
        engine.run([number] * 300)
    engine.host._saved[0].state[-1] ^= 1
    assert engine.run([*wanted, 1]).evaluated == 0
    assert not any(saved.tokens == wanted for saved in engine.host._saved)


def test_a_state_that_the_library_refuses_ends_the_worker() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    wanted = [7] * 200
    engine.run(wanted)
    for number in range(SLOTS):
        engine.run([number] * 300)
    engine.context.breaks = True
    with pytest.raises(RestoreFailed):
        engine.run([*wanted, 1])


@pytest.mark.parametrize("kind", [MemoryKind(), MemoryKind(window=64), MemoryKind(trims=False)])
@pytest.mark.parametrize("seed", range(examples(20)))
def test_the_next_worker_has_what_the_keeper_says_that_it_has(kind: MemoryKind, seed: int) -> None:
    """Workers follow each other; all that is idle of two of three sessions goes along."""
    chance = Random(seed)  # noqa: S311  made up, not secret
    files: dict[str, list[SavedSequence]] = {}
    known: dict[str, list[list[int]]] = {session: [] for session in ("", "a", "b", "c")}
    brought = reused = 0
    for _ in range(40):
        engine = Engine(FakeContext(kind, spare=chance.choice((0, 10))), host_bytes=chance.choice((0, 2**20)))
        for _ in range(6):
            session = chance.choice(list(known))
            tokens = prompt(chance, known[session][-4:])
            heads = {head_of(saved): saved for saved in files.get(session, [])}
            best = engine.keeper.best_gain(list(heads), choice_of(tokens))
            if best is not None:
                files[session].remove(heads[best])
                engine.keeper.bring_back(heads[best])
                brought += 1
            running = engine.run(tokens, session)
            reused += best is not None and running.evaluated >= MIN_REUSE
            known[session].append(tokens)
        files = {session: list(engine.keeper.idle_of(session)) for session in ("a", "b")}
        for saved in (saved for session in files for saved in files[session]):
            assert saved.tokens in known[saved.session], "the sequence of a run of that session, and no other"
    assert brought > 0
    assert reused == brought, "it was brought because it can be used"


def test_a_session_that_comes_while_no_slot_is_free_waits_in_the_memory_of_the_host() -> None:
    before = Engine(FakeContext(MemoryKind()))
    before.run([7] * 200, "a")
    (saved,) = before.keeper.idle_of("a")
    engine = Engine(FakeContext(MemoryKind()))
    begun = [engine.begin([number] * 300) for number in range(SLOTS)]
    engine.keeper.bring_back(saved)
    for running in begun:
        engine.end(running)
    assert engine.run([7] * 201, "a").evaluated == 200


def test_of_sequences_that_continue_each_other_the_longest_is_saved_and_branches_all() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    engine.run([1] * 100, "a")
    engine.run([2] * 100, "a")
    engine.run([1] * 100 + [3] * 100, "a")
    engine.run([4] * 100, "b")
    lengths = sorted(len(saved.tokens) for saved in engine.keeper.idle_of("a"))
    assert lengths == [100, 200]


def test_a_state_that_was_damaged_in_the_memory_of_the_host_is_not_saved_as_a_whole_one() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    engine.run([7] * 200, "a")
    for number in range(SLOTS):
        engine.run([number] * 300, "b")
    (saved,) = engine.keeper.idle_of("a")
    saved.state[-1] ^= 1
    assert not list(engine.keeper.idle_of("a"))


def test_what_is_here_already_is_not_read_from_the_disk() -> None:
    engine = Engine(FakeContext(MemoryKind()))
    engine.run([7] * 200, "a")
    (saved,) = engine.keeper.idle_of("a")
    assert engine.keeper.best_gain([head_of(saved)], choice_of([7] * 201)) is None
    assert Engine(FakeContext(MemoryKind())).keeper.best_gain([head_of(saved)], choice_of([8] * 201)) is None
