"""A session whose worker was unloaded goes on in the next one as if it had stayed: with the same tokens, and soon.

Over every kind of memory: caches, windows, states, and both.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import LlorchError
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from support.engine_bench import Bench, Seen, ended, until
from support.tiny_models import GENERATING, WINDOW, write_tiny_model
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.chunk_size import ChunkSize
from worker_orcd.engines.llama_cpp.context import Context, RestoreFailed
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.host_cache import SavedSequence
from worker_orcd.engines.llama_cpp.session_file import SavedHead
from worker_orcd.engines.llama_cpp.session_files import SessionFiles
from worker_orcd.engines.llama_cpp.sessions_on_disk import SessionsOnDisk
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.run_spec import RunSpec

pytestmark = pytest.mark.native

CONTEXT = 1024
SESSION, OTHER = "a" * 64, "b" * 64
SPEC = RunSpec(prompt="", seed=11, max_tokens=12, sampling=Sampling(temperature=0.0), ignore_eos=True)
LONG = ("the time of all words is now and then " * 10).strip()
QUESTION = " who are you"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {architecture: write_tiny_model(folder, architecture) for architecture in GENERATING}


@pytest.fixture(params=GENERATING)
def model(request: pytest.FixtureRequest, models: dict[str, Path]) -> Path:
    return models[request.param]


@pytest.fixture(autouse=True)
def evaluating_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does with models that are not tiny: these are evaluated faster than any disk writes."""
    monkeypatch.setattr(ChunkSize, "prompt_seconds", lambda *_: 60.0)


@asynccontextmanager
async def worker(
    model: Path, folder: Path, *, slots: int = 2, host_cache_bytes: int = 0, budget: int = 2**30
) -> AsyncIterator[Bench]:
    devices = DeviceSet(DeviceKind.CPU, ("cpu",))
    sessions = SessionsOnDisk(folder, bytes(32), budget)
    engine = LlamaCppEngine(
        LlamaCppShape(
            model, "m", devices, slots, CONTEXT, threads=1, host_cache_bytes=host_cache_bytes, sessions=sessions
        )
    )
    await engine.load()
    try:
        yield Bench(engine)
    finally:
        await engine.close()


async def turns(bench: Bench, prompts: list[str], spec: RunSpec = SPEC, session: str = SESSION) -> list[Seen]:
    return [
        await bench.run(f"{session[0]}-{number}", replace(spec, prompt=prompt), session=session)
        for number, prompt in enumerate(prompts)
    ]


async def unloaded(bench: Bench, *sessions: str) -> None:
    """As a worker that is told to end: what is idle is saved."""
    await bench.engine.save_sessions(dict.fromkeys(sessions or (SESSION,), 600.0), 30.0)


async def saved_by_an_earlier_worker(model: Path, folder: Path) -> None:
    async with worker(model, folder) as before:
        await turns(before, [LONG])
        await unloaded(before)


def saved_in(folder: Path) -> list[Path]:
    return list(folder.glob("*.kv"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cached(seen: Seen) -> int:
    assert seen.end is not None
    return seen.end.cached_tokens


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, sampling=Sampling()), replace(SPEC, deterministic=True)])
async def test_the_next_turn_says_what_it_would_have_said_without_the_unload(
    model: Path, tmp_path: Path, spec: RunSpec
) -> None:
    """After an answer of one token, which is not evaluated, all that is saved is the beginning of the next prompt."""
    first, following = replace(spec, prompt=LONG, max_tokens=1), replace(spec, prompt=LONG + QUESTION)
    async with worker(model, tmp_path) as stayed:
        await stayed.run("first", first, session=SESSION)
        expected = await stayed.run("next", following, session=SESSION)
    async with worker(model, tmp_path) as before:
        await before.run("first", first, session=SESSION)
        await unloaded(before)
    assert len(saved_in(tmp_path)) == 1
    async with worker(model, tmp_path) as after:
        seen = await after.run("next", following, session=SESSION)
    assert seen.token_ids == expected.token_ids
    assert cached(seen) == cached(expected)
    assert spec.deterministic or cached(seen)
    assert bool(saved_in(tmp_path)) is not bool(cached(seen)), "it was read where it is of use"


@pytest.mark.parametrize("kept", [0.3, 0.9])
async def test_a_turn_that_goes_back_says_what_a_fresh_worker_says(model: Path, tmp_path: Path, kept: float) -> None:
    """What is left of a saved sequence whose end does not fit: all of its beginning, a whole window, or nothing."""
    prompt = LONG[: round(kept * len(LONG))] + QUESTION
    async with worker(model, tmp_path / "none") as fresh:
        expected = await fresh.run("fresh", replace(SPEC, prompt=prompt))
    async with worker(model, tmp_path) as before:
        await turns(before, [LONG])
        await unloaded(before)
    async with worker(model, tmp_path) as after:
        seen = await after.run("back", replace(SPEC, prompt=prompt), session=SESSION)
        again = await after.run("again", replace(SPEC, prompt=prompt), session=SESSION)
    assert seen.token_ids == again.token_ids == expected.token_ids


async def test_a_conversation_is_saved_and_restored_again_and_again(model: Path, tmp_path: Path) -> None:
    prompt, said, fresh = LONG, [], []
    for turn in range(4):
        spec = replace(SPEC, prompt=prompt, max_tokens=1)
        async with worker(model, tmp_path) as bench:
            seen = await bench.run("turn", spec, session=SESSION)
            said.append(seen.token_ids)
            assert bool(cached(seen)) is bool(turn), "all but the first go on"
            await unloaded(bench)
        async with worker(model, tmp_path / "none") as alone:
            fresh.append((await alone.run("turn", spec)).token_ids)
        prompt += QUESTION
    assert said == fresh
    assert len(saved_in(tmp_path)) == 1


@pytest.fixture
def llama(models: dict[str, Path]) -> Path:
    return models["llama"]


async def test_another_session_with_the_same_words_gets_nothing_of_it(llama: Path, tmp_path: Path) -> None:
    async with worker(llama, tmp_path) as before:
        await turns(before, [LONG])
        await unloaded(before, SESSION, OTHER)
    async with worker(llama, tmp_path) as after:
        assert cached((await turns(after, [LONG], session=OTHER))[0]) == 0
        (seen,) = await turns(after, [LONG])
    assert cached(seen) > 0, "its own finds it, in the memory that both share by then"


async def test_what_had_to_leave_its_slot_is_saved_as_well(llama: Path, tmp_path: Path) -> None:
    async with worker(llama, tmp_path, slots=1, host_cache_bytes=2**24) as before:
        await turns(before, [LONG])
        await turns(before, [QUESTION * 20], session=OTHER)
        assert before.engine.stats().host_cache_bytes > 0
        await unloaded(before, SESSION, OTHER)
    async with worker(llama, tmp_path, slots=1) as after:
        assert cached((await turns(after, [LONG]))[0]) > 0
        assert cached((await turns(after, [QUESTION * 20], session=OTHER))[0]) > 0


async def test_a_worker_of_another_fingerprint_evaluates_it_again(llama: Path, tmp_path: Path) -> None:
    async with worker(llama, tmp_path) as before:
        (first,) = await turns(before, [LONG])
        await unloaded(before)
    devices = DeviceSet(DeviceKind.CPU, ("cpu",))
    place = SessionsOnDisk(tmp_path, bytes(32), 2**30)
    other = LlamaCppEngine(LlamaCppShape(llama, "m", devices, 2, CONTEXT // 2, threads=1, sessions=place))
    await other.load()
    try:
        (seen,) = await turns(Bench(other), [LONG])
    finally:
        await other.close()
    assert (cached(seen), seen.token_ids) == (0, first.token_ids)
    assert saved_in(tmp_path), "it waits for a worker of its own kind"


async def test_damage_costs_an_evaluation_and_no_answer(model: Path, tmp_path: Path) -> None:
    async with worker(model, tmp_path) as before:
        await before.run("first", replace(SPEC, prompt=LONG, max_tokens=1), session=SESSION)
        await unloaded(before)
    following = replace(SPEC, prompt=LONG + QUESTION)
    async with worker(model, tmp_path / "none") as fresh:
        expected = await fresh.run("next", following)
    (path,) = saved_in(tmp_path)
    damage(path)
    async with worker(model, tmp_path) as after:
        seen = await after.run("next", following, session=SESSION)
    assert (cached(seen), seen.token_ids) == (0, expected.token_ids)
    assert not path.exists()


async def test_a_state_that_the_library_refuses_ends_the_engine_and_no_run(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved_by_an_earlier_worker(llama, tmp_path)

    def refuse(*_: object) -> None:
        raise RestoreFailed("as it was told to")

    monkeypatch.setattr(Context, "restore", refuse)
    async with worker(llama, tmp_path) as after:
        seen = await after.submit("a", replace(SPEC, prompt=LONG), session=SESSION)
        with pytest.raises(LlorchError):
            await after.engine.watch()
        assert seen.end is None, "it goes on with the next worker"
    assert not saved_in(tmp_path), "which does not meet it again"


async def test_a_saved_window_serves_what_goes_on_and_not_what_goes_back(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """A saved state has no more than the window of what would come next."""
    for prompt, is_reused in ((2 * LONG + QUESTION, True), (LONG, False)):
        async with worker(models["gemma3"], tmp_path) as before:
            first = await before.run("first", replace(SPEC, prompt=2 * LONG, max_tokens=1), session=SESSION)
            await unloaded(before)
        assert first.end is not None
        assert first.end.tokens_in > 2 * WINDOW
        async with worker(models["gemma3"], tmp_path) as after:
            seen = await after.run("next", replace(SPEC, prompt=prompt), session=SESSION)
        assert cached(seen) == (first.end.tokens_in if is_reused else 0)


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_worker_with_another_number_of_slots_evaluates_it_again(
    model: Path, tmp_path: Path, slots: int
) -> None:
    first, following = replace(SPEC, prompt=LONG, max_tokens=1), replace(SPEC, prompt=LONG + QUESTION)
    async with worker(model, tmp_path / "none", slots=slots) as fresh:
        expected = await fresh.run("next", following)
    async with worker(model, tmp_path, slots=2) as before:
        await before.run("first", first, session=SESSION)
        await unloaded(before)
    async with worker(model, tmp_path, slots=slots) as after:
        seen = await after.run("next", following, session=SESSION)
    assert (cached(seen), seen.token_ids) == (0, expected.token_ids)
    assert saved_in(tmp_path), "it waits for a worker of its own kind"


async def test_a_run_whose_choices_all_end_with_their_first_token_is_saved(model: Path, tmp_path: Path) -> None:
    """The other choice's slot becomes a copy with the next decoding, which does not come any more."""
    first, following = replace(SPEC, prompt=LONG, max_tokens=1), replace(SPEC, prompt=LONG + QUESTION)
    async with worker(model, tmp_path / "none") as fresh:
        expected = await fresh.run("next", following)
    async with worker(model, tmp_path) as before:
        await before.run("first", replace(first, choices=2), session=SESSION)
        await unloaded(before)
    assert len(saved_in(tmp_path)) == 1
    async with worker(model, tmp_path) as after:
        seen = await after.run("next", following, session=SESSION)
    assert seen.token_ids == expected.token_ids
    assert cached(seen) > 0


@dataclass
class Reading:
    """Of a large file on a slow disk."""

    began: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    seen, take = Reading(), SessionFiles.take

    def slowly(files: SessionFiles, head: SavedHead) -> SavedSequence | None:
        seen.began.set()
        time.sleep(0.5)
        saved = take(files, head)
        seen.ended.set()
        return saved

    monkeypatch.setattr(SessionFiles, "take", slowly)
    return seen


async def test_a_start_does_not_wait_for_a_file(llama: Path, tmp_path: Path, reading: Reading) -> None:
    """Its call ends after 5 s, and a large file may take longer: what was read for it would be lost."""
    await saved_by_an_earlier_worker(llama, tmp_path)
    async with worker(llama, tmp_path) as after:
        seen = await after.submit("a", replace(SPEC, prompt=LONG + QUESTION), session=SESSION)
        assert not reading.ended.is_set()
        assert cached(await ended(seen)) > 0


async def test_a_run_that_is_cancelled_while_its_file_is_read_ends_at_once(
    llama: Path, tmp_path: Path, reading: Reading
) -> None:
    await saved_by_an_earlier_worker(llama, tmp_path)
    async with worker(llama, tmp_path) as after:
        seen = await after.submit("a", replace(SPEC, prompt=LONG + QUESTION), session=SESSION)
        await asyncio.to_thread(reading.began.wait, 10)
        after.engine.cancel("a")
        await ended(seen)
        assert not reading.ended.is_set()
        assert seen.finish is FinishReason.CANCELLED
        assert cached(await after.run("b", replace(SPEC, prompt=LONG + QUESTION), session=SESSION)) > 0


async def test_what_is_being_read_when_the_worker_ends_is_saved_again(
    llama: Path, tmp_path: Path, reading: Reading
) -> None:
    await saved_by_an_earlier_worker(llama, tmp_path)
    async with worker(llama, tmp_path) as after:
        await after.submit("a", replace(SPEC, prompt=LONG + QUESTION), session=SESSION)
        await asyncio.to_thread(reading.began.wait, 10)
        after.engine.cancel("a")
        await unloaded(after)
        assert reading.ended.is_set()
    assert saved_in(tmp_path)


async def test_a_file_stays_where_nothing_can_take_it_in(llama: Path, tmp_path: Path) -> None:
    """No slot is free, and the host's memory has no room for states."""
    await saved_by_an_earlier_worker(llama, tmp_path)
    async with worker(llama, tmp_path, slots=2) as after:
        busy = [await after.submit(f"{number}", replace(SPEC, prompt=QUESTION, max_tokens=900)) for number in (1, 2)]
        for one in busy:
            await until(one, lambda seen: bool(seen.log))
        waiting = await after.submit("a", replace(SPEC, prompt=LONG + QUESTION), session=SESSION)
        for number in (1, 2):
            after.engine.cancel(f"{number}")
        assert cached(await ended(waiting)) == 0
    assert saved_in(tmp_path)


async def test_a_start_does_not_wait_for_a_piece_of_another_prompt(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow CPU a piece takes longer than the call of a start may: the orchestrator would give the run up."""
    await saved_by_an_earlier_worker(llama, tmp_path)
    async with worker(llama, tmp_path) as after:
        decode = Context.decode

        def slowly(context: Context, batch: Batch) -> None:
            time.sleep(2.0)
            decode(context, batch)

        monkeypatch.setattr(Context, "decode", slowly)
        await after.submit("other", replace(SPEC, prompt=QUESTION * 100, max_tokens=1))
        began_at = time.monotonic()
        await after.submit("a", replace(SPEC, prompt=LONG + QUESTION, max_tokens=1), session=SESSION)
        assert time.monotonic() - began_at < 1.0


@pytest.mark.parametrize("what", ["disk", "memory"])
async def test_a_state_that_would_not_be_written_is_not_read_from_its_device(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It may be larger than all the memory that the host has left."""
    reads = []
    monkeypatch.setattr(Context, "save", lambda _, sequence: reads.append(sequence))
    if what == "memory":
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    async with worker(llama, tmp_path, budget=1000 if what == "disk" else 2**30) as bench:
        await turns(bench, [LONG])
        await unloaded(bench)
    assert reads == []
