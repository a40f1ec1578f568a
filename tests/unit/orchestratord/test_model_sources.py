from pathlib import Path

import pytest

from llorch.assignment_mode import Mode
from llorch.cache_type import CacheType
from llorch.settings import SettingsError
from llorch.split_mode import SplitMode
from orchestratord.app_sources import apps_of_file
from orchestratord.assignment_sources import assignments_of_file
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.catalog import Catalog
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.model_sources import models_of_file


def tables(folder: Path, text: str) -> Path:
    path = folder / "llama-orch.toml"
    path.write_text(text)
    return path


@pytest.mark.req("ORCH-1033")
def test_a_table_becomes_a_model(tmp_path: Path) -> None:
    file = tables(
        tmp_path,
        """
        [models.coder]
        source = "file:/m/c.gguf"
        aliases = ["gpt-4o"]
        context = 8192
        slots = 2
        cache_type = "q8_0"
        split = "layer"
        split_shares = [24, 12]
        idle_unload = "15m"
        vram_claim = "11GiB"
        engine = "sim"
        """,
    )
    ((_, event),) = models_of_file(file)
    assert event.origin is Origin.FILE
    assert event.spec == ModelSpec(
        "coder",
        "file:/m/c.gguf",
        ("gpt-4o",),
        8192,
        2,
        CacheType.Q8_0,
        SplitMode.LAYER,
        (24.0, 12.0),
        900.0,
        11 * 1024,
        engine="sim",
    )


def test_what_a_table_does_not_say_is_left_open(tmp_path: Path) -> None:
    ((_, event),) = models_of_file(tables(tmp_path, "[models.smollm2]\nslots = 2\n"))
    assert event.spec == ModelSpec("smollm2", slots=2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[models.coder]\nsorce = "file:/m"\n', "sorce"),
        ('[models.coder]\nsource = "file:/m"\ncontext = 10\n', "context"),
        ('[models.coder]\nsource = "ftp://m"\n', "file:"),
        ('[models.coder]\nsource = "hf:coder"\n', "is not hf:<org>/<repo>"),
        ('[models.coder]\nsource = "https://me:s3cret@h/m.gguf"\n', "a URL with a name or a password"),
        ('[models.coder]\nsource = "file:/m"\nengine = "vllm"\n', "llama_cpp, sim"),
        ('[models.coder]\nsource = "file:/m"\nslot = 2\n', "did you mean slots"),
        ('[models.coder]\nsource = "file:/m"\nxyz = 2\n', "known are"),
        ('[models]\ncoder = "file:/m"\n', "models.coder"),
        ('models = "file:/m"\n', "[models.NAME]"),
        ('[models."a b"]\nsource = "file:/m"\n', "a b"),
        ('[models.coder]\nsource = "file:/m"\naliases = ["a b"]\n', "aliases"),
        ('[models.coder]\nsource = "file:/m"\nidle_unload = 15\n', '"15m"'),
        ('[models.coder]\nsource = "file:/m"\nidle_unload = "15 parsecs"\n', '"15m"'),
        ('[models.coder]\nsource = "file:/m"\nvram_claim = "11"\n', '"11GiB"'),
        ('[models.coder]\nsource = "file:/m"\nvram_claim = "0MiB"\n', "vram_claim: is 0"),
        ('[models.coder]\nsource = "file:/m"\nsplit = "rows"\n', "split"),
        ('[models.coder]\nsource = "file:/m"\nsplit_shares = [0, 0]\n', "split_shares"),
        ('[models.coder]\nsource = "file:/m"\nsplit_shares = [nan, 1]\n', "split_shares"),
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
    assert "s3cret" not in refused.value.message


def test_a_table_that_the_catalog_refuses_is_named_as_well(tmp_path: Path) -> None:
    ((heading, event),) = models_of_file(tables(tmp_path, "[models.coder]\nslots = 2\n"))
    with pytest.raises(SettingsError, match=r"llama-orch\.toml, \[models\.coder\]: source: .*has none"), heading:
        Catalog().register(event.spec, event.origin, event.provenance)


@pytest.mark.req("ORCH-1033")
def test_a_table_becomes_an_app(tmp_path: Path) -> None:
    file = tables(
        tmp_path,
        """
        [apps.aider]
        models = { "gpt-4o-mini" = "small" }
        priority = "batch"
        weight = 2
        max_concurrent_tasks = 3
        """,
    )
    ((_, event),) = apps_of_file(file)
    assert event.app == App(
        "aider",
        models={"gpt-4o-mini": "small"},
        priority="batch",
        weight=2.0,
        max_concurrent_tasks=3,
        origin=Origin.FILE,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[apps.aider]\nwait = 1\n", "weight"),
        ("[apps.aider]\nweight = 0\n", "weight"),
        ('[apps.aider]\nmodels = { "a" = "b c" }\n', 'models."a"'),
        ('[apps."a b"]\n', "a b"),
    ],
)
def test_an_app_that_can_not_be_right_is_refused_with_its_table(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        list(apps_of_file(tables(tmp_path, text)))
    assert named in refused.value.message
    assert "[apps." in refused.value.message


def test_a_table_becomes_an_assignment(tmp_path: Path) -> None:
    file = tables(
        tmp_path,
        """
        [[assignments]]
        model = "coder"
        to = ["garage/3090"]
        mode = "pin"
        keep_loaded = true

        [[assignments]]
        app = "open-webui"
        to = ["attic", "garage/3060"]
        mode = "avoid"
        """,
    )
    drafts = [event.draft for _, event in assignments_of_file(file)]
    assert drafts == [
        Assignment("", "coder", "", ("garage/3090",), Mode.PIN, keep_loaded=True, origin=Origin.FILE),
        Assignment("", "", "open-webui", ("attic", "garage/3060"), Mode.AVOID, origin=Origin.FILE),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[[assignments]]\nmodel = "a"\nto = ["x"]\n', "number 1: mode"),
        ('[[assignments]]\nmodel = "a"\nto = ["x"]\nmode = "nail"\n', "mode"),
        ('[[assignments]]\nmodel = "a b"\nto = ["x"]\nmode = "pin"\n', "model"),
        ('[assignments]\nmodel = "a"\n', "[[assignments]]"),
    ],
)
def test_an_assignment_that_can_not_be_right_is_refused_with_its_number(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        list(assignments_of_file(tables(tmp_path, text)))
    assert named in refused.value.message


def test_without_a_file_there_are_no_tables() -> None:
    assert list(models_of_file(None)) == []
    assert list(apps_of_file(None)) == []
    assert list(assignments_of_file(None)) == []
