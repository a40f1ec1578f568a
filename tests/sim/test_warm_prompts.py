"""Conversations without a session, on three cards whose workers keep what was used last: less is evaluated again."""

from array import array
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

import pytest

from llorch.assignment_mode import Mode
from orchestratord.core import effects, events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.task import TaskRequest
from orchestratord.core.facts.warmth import BLOCK_BYTES, PromptHead, Warmth
from orchestratord.core.state import BrainConfig
from orchestratord.simulation.plan import GIB, DevicePlan, HostPlan, ModelPlan, WorldPlan
from orchestratord.simulation.process import Process, SimulatedRun
from orchestratord.simulation.true_size import TrueSize
from orchestratord.simulation.world import World

pytestmark = [pytest.mark.quality, pytest.mark.req("ORCH-1018")]

HOSTS = ("attic", "cellar", "garage")
SLOTS = 6
TALKS = 15
SHARED, OWN, TURN = 8, 24, 3
"""Blocks of a prompt: the instructions, what each conversation begins with, and what each turn adds."""
TOKENS_PER_BLOCK = BLOCK_BYTES // 4
LONGEST = 90
ANSWER = 80
LASTS_S = 1200.0


class Talks(World):
    """Each conversation goes on 2 to 20 s after an answer.

    A worker keeps `keeps` prompts, and drops one that is drawn; the orchestrator, which is told nothing, takes it to
    keep as many as it has slots, and to drop the oldest.
    """

    def __init__(self, seed: int, keeps: int) -> None:
        hosts = tuple(
            HostPlan(name, (DevicePlan(f"GPU-{name}", "RTX 3090", 24 * GIB, 0, 1.0),), 4000.0) for name in HOSTS
        )
        model = ModelPlan("coder", 9 * GIB, 9 * GIB, 40.0)
        spec = ModelSpec("coder", "file:/models/coder.gguf", slots=SLOTS, context=16384, vram_claim_mib=9 * GIB)
        rule = Assignment("", "coder", "", HOSTS, Mode.PREFER, replicas_min=len(HOSTS), origin=Origin.FILE)
        settings = (events.ModelRegistered(spec, Origin.FILE, "a test"), events.AssignmentSet(rule))
        super().__init__(WorldPlan(seed=seed, hosts=hosts, models=(model,)), BrainConfig(), settings)
        self._numbers_of_tasks = count(1)
        self._keeps = keeps
        self._drops = Random(f"drops of {seed}")  # noqa: S311  # a schedule, not a secret
        self._prompts: dict[str, list[int]] = {}
        self._talk_of: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._kept: dict[str, dict[int, list[int]]] = {}
        self.tokens_in = self.evaluated = 0
        self.took_s: list[float] = []
        self.listeners.append(self._answered)

    def begin(self) -> None:
        super().begin()
        for number in range(TALKS):
            shared = [block(TALKS, at) for at in range(SHARED)]
            own = [block(number, at) for at in range(OWN)]
            self._go_on(number, [*shared, *own], 30.0)

    def seconds_for(self, process: Process, run: SimulatedRun) -> tuple[float, float]:
        """As the process itself, without what it has of the prompt."""
        prefill_s, decode_s = _SECONDS_FOR(process, run)
        prompt, kept = self._prompts[run.task_id], self._kept.setdefault(process.worker_id, {})
        warm = max((_common(prompt, other) for other in kept.values()), default=0)
        kept.pop(next((last for last, other in kept.items() if _common(prompt, other) == len(other)), -1), None)
        kept[prompt[-1]] = prompt
        while len(kept) > self._keeps:
            del kept[self._drops.choice(list(kept)[:-1])]
        self.tokens_in += run.tokens_in
        self.evaluated += run.tokens_in - warm * TOKENS_PER_BLOCK
        return prefill_s * (1 - warm / len(prompt)), decode_s

    def _go_on(self, talk: int, blocks: list[int], within_s: float) -> None:
        if self.schedule.now < LASTS_S:
            self.schedule.after(self.random.uniform(2.0, within_s), partial(self._ask, talk, blocks))

    def _ask(self, talk: int, blocks: list[int]) -> None:
        task_id = f"task-{next(self._numbers_of_tasks)}"
        tokens = len(blocks) * TOKENS_PER_BLOCK
        self.work[task_id] = TrueSize(tokens, ANSWER)
        self._prompts[task_id], self._talk_of[task_id], self._began[task_id] = blocks, talk, self.schedule.now
        request = TaskRequest(task_id, "coder", b"", "digest", 1, prompt_tokens=tokens)
        self.ask(events.TaskSubmitted(request, PromptHead(array("Q", blocks), len(blocks) * BLOCK_BYTES)))
        self.tell(events.ReaderAttached(task_id))

    def _answered(self, effect: effects.Effect) -> None:
        """The conversation goes on, or begins anew where it has become long."""
        if isinstance(effect, effects.AppendTerminal):
            talk, blocks = self._talk_of[effect.task_id], self._prompts[effect.task_id]
            self.took_s.append(self.schedule.now - self._began[effect.task_id])
            if len(blocks) > LONGEST:
                self._go_on(talk, blocks[: SHARED + OWN], 20.0)
            else:
                self._go_on(talk, [*blocks, *(block(talk, len(blocks), at) for at in range(TURN))], 20.0)


def block(*what: int) -> int:
    return hash(what) % 2**64


_SECONDS_FOR: Callable[[Process, SimulatedRun], tuple[float, float]] = Process.seconds_for


def _common(one: list[int], other: list[int]) -> int:
    """Blocks at the beginning that both have."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def lived(seed: int, keeps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """The share of all prompts that was evaluated, and how long an answer took, in s."""
    world = Talks(seed, keeps)

    def seconds_for(process: Process, run: SimulatedRun) -> tuple[float, float]:
        return world.seconds_for(process, run)

    monkeypatch.setattr(Process, "seconds_for", seconds_for)
    world.begin()
    world.schedule.run_until(LASTS_S + 60)
    return world.evaluated / world.tokens_in, sum(world.took_s) / len(world.took_s)


@pytest.mark.parametrize(("keeps", "evaluated_most", "took_most"), [(SLOTS, 0.4, 0.55), (SLOTS - 2, 0.7, 0.8)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_less_is_evaluated_again_and_answers_come_sooner(
    seed: int, keeps: int, evaluated_most: float, took_most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, took_s = lived(seed, keeps, monkeypatch)
    monkeypatch.setattr(Warmth, "share", lambda *_: 0.0)
    monkeypatch.setattr(Warmth, "prompts_of", lambda *_: 0)
    before, took_before_s = lived(seed, keeps, monkeypatch)
    assert evaluated / before < evaluated_most, "0.26 to 0.31 were measured, and 0.55 to 0.59"
    assert took_s / took_before_s < took_most, "0.42 to 0.45 were measured, and 0.66 to 0.71"
