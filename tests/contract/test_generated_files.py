"""What is generated and committed is what its source gives, and the check for it can fail."""

from pathlib import Path

import pytest

import document_options
import document_settings
import generate
from llorch.settings import DaemonSettings


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("gen")
    generate.copy_googleapis()
    generate.generate(target)
    return target


def test_gen_is_what_the_protos_give(generated: Path) -> None:
    assert generate.differences(generated, generate.GEN) == []


def test_a_missing_a_foreign_and_a_changed_file_are_found(generated: Path, tmp_path: Path) -> None:
    committed = tmp_path / "gen"
    for name, content in generate.contents(generated).items():
        (committed / name).parent.mkdir(parents=True, exist_ok=True)
        (committed / name).write_bytes(content)
    assert generate.differences(generated, committed) == []
    package = committed / "llama_orch" / "v2"
    (package / "task_pb2.py").unlink()
    (package / "foreign_pb2.py").write_text("")
    (package / "run_pb2.pyi").write_text("# changed\n")
    changed = ["llama_orch/v2/foreign_pb2.py", "llama_orch/v2/run_pb2.pyi", "llama_orch/v2/task_pb2.py"]
    assert generate.differences(generated, committed) == changed


def test_the_settings_are_documented_as_the_classes_have_them() -> None:
    document = document_settings.DOCUMENT.read_text()
    assert document_settings.filled_in(document) == document


def test_the_options_are_documented_as_the_tables_have_them() -> None:
    assert document_options.DOCUMENT.read_text() == document_options.text()


def test_an_option_that_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "options.md"
    stale.write_text(document_options.text().replace("`0.8`", "`0.7`"))
    monkeypatch.setattr(document_options, "DOCUMENT", stale)
    assert document_options.main(["--check"]) == 1
    assert document_options.main([]) == document_options.main(["--check"]) == 0


def test_every_setting_says_what_it_means() -> None:
    silent = [
        f"{daemon.section}.{name}"
        for daemon in document_settings.DAEMONS
        for name, field in daemon.model_fields.items()
        if not field.description
    ]
    assert silent == []


@pytest.mark.parametrize("daemon", document_settings.DAEMONS, ids=lambda daemon: daemon.section)
def test_the_document_names_flag_environment_and_key_of_every_setting(daemon: type[DaemonSettings]) -> None:
    document = document_settings.DOCUMENT.read_text()
    table = document.partition(f"<!-- settings: {daemon.section} -->")[2].partition("<!-- end -->")[0]
    for name in set(daemon.model_fields) - set(DaemonSettings.model_fields):
        flag, variable = f"--{name.replace('_', '-')}", f"LLORCH_{daemon.section}_{name}".upper()
        assert f"| `{name}` | `{flag}` | `{variable}` |" in table
