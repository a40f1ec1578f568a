"""What becomes of a model whose file changes: it stays what it was, or is refused; it is never a mixture."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, Reason
from llorch.options.sampling import Sampling
from support.engine_runs import EngineRuns
from support.tiny_models import write_tiny_model
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.engine_thread import EngineThread
from worker_orcd.engines.llama_cpp.model_file import UnchangedFiles
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.run_spec import RunSpec

SPEC = RunSpec(prompt="hello", max_tokens=8, sampling=Sampling(temperature=0.0), ignore_eos=True)
PROMPTS = ("hello you", "what would they say", "one two three")


def runs(path: Path) -> EngineRuns:
    return EngineRuns(LlamaCppEngine(LlamaCppShape(path, "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 1, 256, threads=1)))


def answers(engine: EngineRuns) -> list[list[int]]:
    return [engine.run(replace(SPEC, prompt=prompt)).token_ids for prompt in PROMPTS]


@pytest.mark.native
def test_a_loaded_model_stays_what_it_was_whatever_happens_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "another").mkdir()
    path = write_tiny_model(tmp_path, "llama")
    another = write_tiny_model(tmp_path / "another", "llama", seed=2)
    with runs(path) as engine:
        before = answers(engine)
        with runs(another) as others:
            assert answers(others) != before
    changing = Path(shutil.copy(path, tmp_path / "model.gguf"))
    with runs(changing) as engine:
        with changing.open("r+b") as file:
            file.write(another.read_bytes())
            file.flush()
            assert answers(engine) == before
            file.truncate(1000)
            assert answers(engine) == before
        changing.unlink()
        assert answers(engine) == before


@pytest.mark.native
def test_a_file_that_changes_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_model(tmp_path, "llama")
    monkeypatch.setattr(EngineThread, "_hear_share", lambda *_: os.utime(path, (1, 1)))
    engine = runs(path)
    with pytest.raises(FailedPrecondition, match=r"tiny-llama\.gguf was changed while it was loaded") as refused:
        engine.__enter__()
    engine.__exit__(None, None, None)
    assert refused.value.reason is Reason.MODEL_LOAD_FAILED


def test_all_files_of_a_split_model_are_looked_at(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(b"x")
    files = UnchangedFiles(tmp_path / "m-00001-of-00002.gguf")
    files.check()
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"xy")
    with pytest.raises(FailedPrecondition):
        files.check()
