from pathlib import Path

import pytest

from llorch.settings import SettingsError
from orchestratord.core.catalog import Origin
from orchestratord.model_sources import models_of_file


def tables(folder: Path, text: str) -> Path:
    path = folder / "llama-orch.toml"
    path.write_text(text)
    return path


@pytest.mark.req("ORCH-1033")
def test_a_table_becomes_a_model(tmp_path: Path) -> None:
    file = tables(tmp_path, '[models.coder]\nsource = "file:/m/c.gguf"\naliases = ["gpt-4o"]\ncontext = 8192\n')
    (event,) = models_of_file(file)
    assert (event.spec.name, event.spec.aliases, event.spec.context, event.origin) == (
        "coder",
        ("gpt-4o",),
        8192,
        Origin.FILE,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[models.coder]\nsorce = "file:/m"\n', "sorce"),
        ('[models.coder]\nsource = "file:/m"\ncontext = 10\n', "context"),
        ('[models.coder]\nsource = "ftp://m"\n', "file:"),
        ('[models.coder]\nsource = "file:/m"\nslot = 2\n', "did you mean slots"),
        ('[models.coder]\nsource = "file:/m"\nxyz = 2\n', "known are"),
        ('[models]\ncoder = "file:/m"\n', "models.coder"),
        ('[models."a b"]\nsource = "file:/m"\n', "a b"),
    ],
)
def test_a_table_that_can_not_be_right_is_refused_with_file_table_and_key(
    tmp_path: Path, text: str, named: str
) -> None:
    file = tables(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        list(models_of_file(file))
    assert named in refused.value.message
    assert "llama-orch.toml" in refused.value.message


def test_without_a_file_there_are_no_tables() -> None:
    assert list(models_of_file(None)) == []
