"""A day to simulate is read from a settings file, and what can't be right is named."""

from pathlib import Path

import pytest

from llorch.errors import InvalidArgument
from llorch.settings import SettingsError
from orchestratord.core import events
from orchestratord.day_file import day_of_file, with_gpu, with_pin
from orchestratord.simulation.day import Day
from orchestratord.simulation.true_size import TrueSize

HOUR = 3600.0
FILE = """
[models.coder]
source = "hf:some/repository:Q4"
vram_claim = "20GiB"
slots = 2

[models.chat]
vram_claim = "8GiB"

[apps.aider]
models = { "gpt" = "coder" }

[[assignments]]
model = "chat"
to = ["garage/3060"]
mode = "prefer"

[simulate.hosts.garage]
gpus = ["RTX 3090:24GiB", "Unknown:12GiB"]
disk = "3GiB"

[simulate.models.coder]
tokens_per_s = { "RTX 3090" = 31 }

[[simulate.work]]
app = "aider"
model = "gpt"
per_hour = 100
prompt_tokens = 500
output_tokens = [20, 40]
begin = "1h"
end = "3h"
"""


def day_of(folder: Path, text: str = FILE, lasts_s: float = 4 * HOUR, seed: int = 1) -> Day:
    file = folder / "day.toml"
    file.write_text(text)
    return day_of_file(file, lasts_s, seed)


def test_all_of_a_file_is_read(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    (host,) = day.plan.hosts
    assert (host.node_id, host.disk_mib_per_s) == ("garage", 3072.0)
    assert [(one.name, one.total_mib, one.speed) for one in host.devices] == [
        ("RTX 3090", 24 * 1024, 936 / 400),
        ("Unknown", 12 * 1024, 1.0),
    ]
    assert [type(event) for event in day.settings] == [
        events.ModelRegistered,
        events.ModelRegistered,
        events.AppDefined,
        events.AssignmentSet,
    ]
    coder, chat = day.plan.models
    assert (coder.claim_mib, coder.slots, coder.tokens_per_s(host.devices[:1])) == (20 * 1024, 2, 31)
    assert coder.tokens_per_s(host.devices[1:]) == pytest.approx(240_000 / (20 * 1024 * 1.048576))
    assert chat.tokens_per_s(host.devices) == pytest.approx(240_000 / (8 * 1024 * 1.048576)), "as on the slower one"
    assert 150 < len(day.work) < 250
    assert all(HOUR < one.at < 3 * HOUR for one in day.work)
    assert all((one.app, one.model, one.work.tokens_in) == ("aider", "gpt", 500) for one in day.work)
    assert {one.work.tokens_out for one in day.work} == set(range(20, 41))


def test_the_seed_alone_draws_the_work(tmp_path: Path) -> None:
    assert day_of(tmp_path).work == day_of(tmp_path).work
    assert day_of(tmp_path).work != day_of(tmp_path, seed=2).work
    more = FILE + '[[simulate.work]]\nmodel = "chat"\nper_hour = 10\nprompt_tokens = 5\noutput_tokens = 5\n'
    with_more = day_of(tmp_path, more).work
    assert [one for one in with_more if one.app == "aider"] == list(day_of(tmp_path).work), "each draws for itself"
    assert [one.at for one in with_more] == sorted(one.at for one in with_more)


def test_so_many_come_at_once(tmp_path: Path) -> None:
    at = [one.at for one in day_of(tmp_path, FILE.replace("per_hour = 100", "per_hour = 100\nat_once = 5")).work]
    assert len(at) == 5 * len(set(at)) > 100


@pytest.mark.parametrize("lasts_s", [HOUR / 2, HOUR])
def test_work_that_begins_after_the_day_does_not_come(tmp_path: Path, lasts_s: float) -> None:
    assert day_of(tmp_path, lasts_s=lasts_s).work == ()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('app = "aider"', 'app = "eider"', "app: there is no [apps.eider]; known are aider"),
        ('model = "gpt"', 'model = "gtp"', "model: none is called 'gtp'; known are chat, coder, gpt"),
        ('app = "aider"\n', "", "model: none is called 'gpt'; known are chat, coder"),
        ("per_hour", "per_hours", "[[simulate.work]] number 1: unknown key per_hours; did you mean per_hour?"),
        ("per_hour = 100", "per_hour = 0", "per_hour: "),
        ("per_hour = 100", "per_hour = 900000", "per_hour: about 1800000 tasks would come; at most 200000"),
        ('begin = "1h"', 'begin = "3h"', "begin: has to be before the end"),
        ("[20, 40]", "[40, 20]", "output_tokens: [40, 20] has the most before the least"),
        ("[20, 40]", "0", "output_tokens"),
        ('"RTX 3090" = 31', '"RTX 3090" = 0', "tokens_per_s"),
        ('"RTX 3090" = 31', '"RTX 3090" = inf', "tokens_per_s"),
        ("per_hour = 100", "per_hour = nan", "per_hour"),
        ('"3GiB"', '"0MiB"', "disk"),
        ("[20, 40]", "[1, 2, 3]", "output_tokens"),
        ('vram_claim = "8GiB"', "", "[models.chat]: vram_claim: is needed here"),
        ("[simulate.models.coder]", "[simulate.models.code]", "there is no [models.code]; known are coder, chat"),
        ("RTX 3090:24GiB", "RTX 3090", '[simulate.hosts.garage]: simulate_gpu: "RTX 3090" is not NAME:SIZE'),
        ("[simulate.hosts.garage]\ngpus = ", "[simulate.hosts]\ngarage = ", "[simulate.hosts.garage]"),
    ],
)
def test_what_can_not_be_right_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert FILE.count(old) >= 1
    with pytest.raises(SettingsError) as refused:
        day_of(tmp_path, FILE.replace(old, new, 1))
    assert told in refused.value.message
    assert str(tmp_path / "day.toml") in refused.value.message


@pytest.mark.parametrize(("section", "told"), [("models", "[models.NAME]"), ("simulate", "[simulate.hosts.NAME]")])
def test_a_day_without_machines_or_models_is_none(tmp_path: Path, section: str, told: str) -> None:
    only = "[simulate.hosts.a]\ngpus = []\n" if section == "models" else '[models.a]\nvram_claim = "1GiB"\n'
    with pytest.raises(SettingsError) as refused:
        day_of(tmp_path, only)
    assert told in refused.value.message


def test_another_gpu_comes_into_a_machine_or_with_a_new_one(tmp_path: Path) -> None:
    day = with_gpu(with_gpu(day_of(tmp_path), "garage", "RTX 4090:24GiB"), "attic", "RTX 3060:12GiB")
    garage, attic = day.plan.hosts
    assert [one.device_id for one in garage.devices] == ["GPU-garage-0", "GPU-garage-1", "GPU-garage-2"]
    assert [(one.device_id, one.name) for one in attic.devices] == [("GPU-attic-0", "RTX 3060")]
    assert day.work == day_of(tmp_path).work


def test_another_pin_is_a_rule_more(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    assert with_pin(day, "coder", "garage/3090").settings[: len(day.settings)] == day.settings
    with pytest.raises(InvalidArgument, match="there is no model 'code'; known are coder, chat"):
        with_pin(day, "code", "garage")


def test_the_work_stays_where_all_else_is_of_another_file(tmp_path: Path) -> None:
    day, other = day_of(tmp_path), day_of(tmp_path, FILE.replace("garage", "cellar").replace("= 500", "= 7"))
    mixed = day.instead(other)
    assert mixed.plan.hosts[0].node_id == "cellar"
    assert {one.work.tokens_in for one in mixed.work} == {500}
    assert mixed.work[0].work == TrueSize(500, day.work[0].work.tokens_out)
