"""README.md and docs/sdk.md: their examples run, and they name everything that there is."""

import asyncio
import re

import pytest

from llorch import AsyncClient, GenerateOptions, PlacementWishes, SessionBudget, Tool
from support.examples import BEYOND_THE_SIMULATION, EXAMPLES, ROOT, Example
from support.whole_system import WholeSystem, gguf, ranker

WITH_SIMULATION = [example for example in EXAMPLES if example.heading not in BEYOND_THE_SIMULATION]


@pytest.mark.parametrize("example", WITH_SIMULATION, ids=lambda example: example.place)
async def test_an_example_runs_and_prints(
    example: Example, system: WholeSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await system.register("smollm2", f"file:{gguf(system.folder, 'smollm2.gguf')}", slots=4)
    await system.register("reranker", f"file:{ranker(system.folder)}")
    monkeypatch.setenv("LLORCH_ADDRESS", system.address)

    await asyncio.to_thread(example.run)

    assert capsys.readouterr().out.strip()


def test_both_documents_have_examples() -> None:
    assert {example.place.partition(",")[0] for example in WITH_SIMULATION} == {"README.md", "docs/sdk.md"}
    assert {example.heading for example in EXAMPLES} >= BEYOND_THE_SIMULATION


def test_the_document_names_every_option_and_every_call() -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "sdk.md").read_text()))
    options = {
        name for kind in (GenerateOptions, PlacementWishes, SessionBudget, Tool) for name in kind.__annotations__
    }
    calls = {name for name in dir(AsyncClient) if not name.startswith("_")} - {"address", "close"}

    assert options | calls <= named
