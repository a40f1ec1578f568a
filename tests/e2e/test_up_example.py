"""What `llorch up` prints at last can be typed: its example names a model that makes text and can be loaded."""

from pathlib import Path

import pytest

from support.gguf_writer import MetadataValue, header_bytes, smallest_model
from support.up import running_up

CARD = "RTX 3090:24GiB"
ENCODER: dict[str, MetadataValue] = {
    "general.architecture": "bert",
    "bert.context_length": 512,
    "bert.embedding_length": 64,
    "bert.block_count": 1,
    "bert.attention.head_count": 1,
}


def settings(folder: Path, *models: str) -> Path:
    """Models by their names, in the order of the alphabet the least useful first."""
    (folder / "a.gguf").write_bytes(header_bytes(ENCODER, {}))
    (folder / "b.gguf").write_text("a text, and no model")
    (folder / "d.gguf").write_bytes(smallest_model())
    (folder / "huge.gguf").write_bytes(smallest_model())
    lines = ["[orchestrator]", "package_models = false"]
    for name in models:
        lines += [f"[models.{name}]", f'source = "file:{folder / f"{name}.gguf"}"']
    if "huge" in models:
        lines.append('vram_claim = "500GiB"')
    file = folder / "settings.toml"
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize(("models", "example"), [("abcd", "d"), ("abc", ""), (("huge",), ""), ("", "")])
async def test_the_example_names_a_model_that_can_answer(tmp_path: Path, models: str, example: str) -> None:
    arguments = ("--simulate-gpu", CARD, "--config", str(settings(tmp_path, *models)))
    async with running_up(tmp_path / "data", *arguments) as up:
        await up.ready()
    if example:
        assert f'{example} "Name three colours."' in up.output
    else:
        assert "llorch run" not in up.output
        assert "llorch models add" in up.output
    assert (": can't be loaded: b.gguf is not a model that can be loaded: it is text" in up.output) == ("b" in models)
    assert ("c.gguf is not there" in up.output) == ("c" in models)
