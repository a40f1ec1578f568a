"""The sampler's stages in C, over a vocabulary of eight tokens: no model is needed, only the library."""

import importlib.util
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llorch.options.sampling import Sampling
from worker_orcd.engines.llama_cpp.candidates import Candidates
from worker_orcd.engines.llama_cpp.draws import draw_seed
from worker_orcd.engines.llama_cpp.mirostat import Mirostat
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.sampler import NothingToPick, Sampler, Workbench
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import RunSpec

pytestmark = [pytest.mark.native, pytest.mark.req("WORK-3005")]

SIZE = 8
ROW = np.log(np.array([0.30, 0.25, 0.15, 0.10, 0.08, 0.06, 0.04, 0.02], np.float32))
PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)


@pytest.fixture
def lib() -> Any:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    return load_native().lib


class Stages:
    """A sampler whose logits are always the same row."""

    def __init__(self, lib: Any) -> None:
        model: Any = SimpleNamespace(vocabulary_size=SIZE, vocab=None, ends_text=frozenset(), pieces=["x"] * SIZE)
        candidates: Any = Candidates(lib, SIZE)
        candidates.row = lambda _context, _output: ROW
        self._bench = Workbench(lib, model, candidates)
        self._open: list[Sampler] = []

    def picks(
        self,
        sampling: Sampling,
        count: int,
        *,
        tokens: tuple[int, ...] = (),
        log: tuple[LogEntry, ...] = (),
        seed: int = 5,
    ) -> list[int]:
        """The tokens of a choice that goes on after `log`."""
        sampler = Sampler(self._bench, EngineRun("a", RunSpec(seed=seed, sampling=sampling), log), 0, list(tokens))
        self._open.append(sampler)
        begin = sum(len(entry.token_ids) for entry in log)
        picked = []
        self.states = []
        for index in range(begin, begin + count):
            picked.append(sampler.pick(0, 0, index))
            particulars = sampler.particulars(0, 0, picked[-1])
            self.states.append(particulars.sampler_state if particulars is not None else b"")
        return picked

    def close(self) -> None:
        for sampler in self._open:
            sampler.close()


@pytest.fixture
def stages(lib: Any) -> Iterator[Stages]:
    made = Stages(lib)
    yield made
    made.close()


def test_tokens_come_as_often_as_their_probabilities_say(stages: Stages) -> None:
    counts = Counter(stages.picks(PLAIN, 6000))
    for token_id, share in enumerate(np.exp(ROW)):
        assert counts[token_id] / 6000 == pytest.approx(share, abs=0.02)


def test_a_token_depends_on_its_place_and_not_on_what_was_drawn_before(stages: Stages) -> None:
    whole = stages.picks(PLAIN, 40)
    assert stages.picks(PLAIN, 20, log=(LogEntry(0, tuple(whole[:20])),)) == whole[20:]
    assert stages.picks(PLAIN, 40, seed=6) != whole


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        (replace(PLAIN, temperature=0.0), {0}),
        (replace(PLAIN, top_k=3), {0, 1, 2}),
        (replace(PLAIN, top_p=0.6), {0, 1, 2}),
        (replace(PLAIN, min_p=0.4), {0, 1, 2}),
        (replace(PLAIN, xtc_probability=1.0, xtc_threshold=0.12), {2, 3, 4, 5, 6, 7}),
        (replace(PLAIN, logit_bias={0: -100.0, 7: -100.0}), {1, 2, 3, 4, 5, 6}),
        (replace(PLAIN, logit_bias={7: 100.0}), {7}),
        (replace(PLAIN, typical_p=0.3), {2, 1}),
    ],
)
def test_a_stage_leaves_what_it_should(stages: Stages, sampling: Sampling, left: set[int]) -> None:
    assert set(stages.picks(sampling, 300)) == left


def test_xtc_tosses_its_coin_by_the_tokens_place(stages: Stages) -> None:
    half = replace(PLAIN, xtc_probability=0.5, xtc_threshold=0.12)
    whole = stages.picks(half, 200)
    counts = Counter(whole)
    assert 0.2 < (counts[0] + counts[1]) / 200 < 0.35, "0.55 in one half of the draws, and none in the other"
    assert stages.picks(half, 100, log=(LogEntry(0, tuple(whole[:100])),)) == whole[100:]


def test_the_stages_that_look_back_see_the_tokens_that_were_there_before(stages: Stages) -> None:
    greedy = replace(PLAIN, temperature=0.0)
    punished = replace(greedy, presence_penalty=2.0, repeat_last_n=2)
    assert stages.picks(greedy, 3) == [0, 0, 0]
    assert stages.picks(punished, 6) == [0, 1, 2, 0, 1, 2]
    assert stages.picks(punished, 4, tokens=(5, 0, 1)) == [2, 0, 1, 2]
    assert stages.picks(replace(punished, repeat_last_n=0), 2, tokens=(0,)) == [0, 0]


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_continues_from_its_state(stages: Stages, version: int) -> None:
    sampling = replace(PLAIN, mirostat=version, mirostat_tau=2.0, mirostat_eta=0.3)
    whole = stages.picks(sampling, 60)
    states = stages.states
    log = tuple(LogEntry(0, (token_id,), sampler_state=state) for token_id, state in zip(whole, states, strict=True))
    assert len(set(states)) > 30
    assert stages.picks(sampling, 40, log=log[:20]) == whole[20:]
    assert stages.states == states[20:]


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_is_llama_cpps_own(lib: Any, version: int) -> None:
    """Step by step beside llama.cpp's stage, which learns by itself."""
    sampling = replace(PLAIN, mirostat=version, mirostat_tau=1.7, mirostat_eta=0.4)
    ours = Mirostat(lib, SIZE, sampling, b"")
    candidates = Candidates(lib, SIZE)
    if version == 1:
        theirs = lib.llama_sampler_init_mirostat(SIZE, 3, 1.7, 0.4, 100)
    else:
        theirs = lib.llama_sampler_init_mirostat_v2(3, 1.7, 0.4)
    for index in range(30):
        candidates.fill(ROW)
        candidates.apply(theirs)
        picked = candidates.picked
        assert picked is not None
        left = candidates._array.size
        ours_stage = ours.stage(draw_seed(3, 0, index))
        candidates.fill(ROW)
        candidates.apply(ours_stage)
        lib.llama_sampler_free(ours_stage)
        assert candidates._array.size == left, "as many tokens are left to choose from"
        ours.observe(picked[1])
    lib.llama_sampler_free(theirs)


def test_a_row_without_a_pick_is_told(stages: Stages) -> None:
    everything = dict.fromkeys(range(SIZE), -100.0)
    with pytest.raises(NothingToPick, match="leave no token"):
        stages.picks(replace(PLAIN, logit_bias=everything, mirostat=2), 1)
