"""docs/http.md: its bodies are taken as they stand, and its paths are there."""

import json
import re
from pathlib import Path

import pytest

from support.whole_system import WholeSystem, gguf, ranker

DOCUMENT = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
CALLS = re.findall(r"^\| `POST (/v2/\w+)` \| `(\{.*?\})`(?: \||,)", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("path", "body"), CALLS, ids=[path for path, _ in CALLS])
async def test_a_body_of_the_document_is_taken(system: WholeSystem, path: str, body: str) -> None:
    for name in ("smollm2", "embedder"):
        await system.register(name, f"file:{gguf(system.folder, f'{name}.gguf')}")
    await system.register("reranker", f"file:{ranker(system.folder)}")
    answer = await system.http.post(path, json=json.loads(body))
    assert answer.status_code == 200, answer.text


def test_the_document_has_the_calls_that_it_is_about() -> None:
    assert [path for path, _ in CALLS] == ["/v2/generate", "/v2/embed", "/v2/rerank", "/v2/tokenize"]


async def test_the_form_of_a_conversation_is_taken(system: WholeSystem) -> None:
    (form,) = re.findall(r'`"generate": (\{"chat": .*?\]\}\})`', DOCUMENT)
    await system.register("smollm2", f"file:{gguf(system.folder, 'smollm2.gguf')}")
    answer = await system.http.post("/v2/count_tokens", json={"model": "smollm2", "generate": json.loads(form)})
    assert answer.status_code == 200, answer.text


def test_every_folder_of_paths_is_named() -> None:
    contract = Path(__file__).parents[2] / "proto" / "llama_orch" / "v2"
    paths = {path for file in contract.glob("*.proto") for path in re.findall(r'"/v2/(\w+)', file.read_text())}
    assert {path for path in paths if f"/v2/{path}" not in DOCUMENT} == set()
