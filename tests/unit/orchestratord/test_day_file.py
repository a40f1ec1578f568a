"""A day to simulate is read from a settings file, and what can't be right is named."""

from pathlib import Path

import pytest

from llorch.errors import InvalidArgument
from llorch.settings import SettingsError
from orchestratord.core import events
from orchestratord.core.facts.model import Origin
from orchestratord.day_file import day_of_file, refuse_unknown_apps, with_gpu, with_pin
from orchestratord.simulation.cards import GB_PER_S, plain_name
from orchestratord.simulation.day import DAY_S, Arrival, Day
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
gpus = ["RTX 3090:24GiB", "Own:12GiB"]
disk = "3GiB"

[simulate.cards.Own]
gb_per_s = 400

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
        ("RTX 3090", 24 * 1024, 936.0),
        ("Own", 12 * 1024, 400.0),
    ]
    assert [type(event) for event in day.settings] == [
        events.ModelRegistered,
        events.ModelRegistered,
        events.AppDefined,
        events.AssignmentSet,
    ]
    coder, chat = day.plan.models
    assert (coder.claim_mib, coder.tokens_per_s(host.devices[:1])) == (20 * 1024, 31)
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
        ('begin = "1h"', 'begin = "3h"', "begin and end: are times of a day, from 0h to 24h, the beginning first"),
        ("[20, 40]", "[40, 20]", "output_tokens: [40, 20] has the most before the least"),
        ("[20, 40]", "0", "output_tokens"),
        ('"RTX 3090" = 31', '"RTX 3090" = 0', "tokens_per_s"),
        ('"RTX 3090" = 31', '"RTX 3090" = inf', "tokens_per_s"),
        ("per_hour = 100", "per_hour = nan", "per_hour"),
        ('"3GiB"', '"0MiB"', "disk"),
        ("= 500", "= true", "prompt_tokens"),
        ("per_hour = 100", 'per_hour = 100\npriority = "low"', "priority: 'low' is none of: interactive, batch"),
        ('models = { "gpt"', 'priority = "low"\nmodels = { "gpt"', "[apps.aider]: priority: 'low' is none of"),
        (
            "[simulate.hosts.garage]",
            "[simulate.host.garage]",
            "[simulate.host] means nothing; did you mean simulate.hosts?",
        ),
        ("[[simulate.work]]", "[[simulate.works]]", "[simulate.works] means nothing; did you mean simulate.work?"),
        ("RTX 3090:24GiB", "rtx4090:24GiB", "how fast 'rtx4090' is, is not known; near are RTX 4090"),
        ('{ "RTX 3090"', '{ "RTX 3099"', "tokens_per_s: how fast 'RTX 3099' is"),
        ('end = "3h"', 'end = "25h"', "begin and end: are times of a day"),
        ("[20, 40]", "[1, 2, 3]", "output_tokens"),
        ('vram_claim = "8GiB"', "", "[models.chat]: vram_claim: is needed here"),
        ("[simulate.models.coder]", "[simulate.models.code]", "there is no [models.code]; known are coder, chat"),
        ("RTX 3090:24GiB", "RTX 3090", '[simulate.hosts.garage]: gpus: "RTX 3090" is not NAME:SIZE'),
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
    file = tmp_path / "day.toml"
    day = with_gpu(day_of(tmp_path), file, "garage", "NVIDIA GeForce RTX 4090:24GiB")
    day = with_gpu(day, file, "attic", "Own:12GiB")
    garage, attic = day.plan.hosts
    assert [one.device_id for one in garage.devices] == ["GPU-garage-0", "GPU-garage-1", "GPU-garage-2"]
    assert [(one.device_id, one.name) for one in attic.devices] == [("GPU-attic-0", "Own")]
    assert day.work == day_of(tmp_path).work


def test_a_pin_is_of_a_model_by_any_of_its_names(tmp_path: Path) -> None:
    day = day_of(tmp_path, FILE.replace("slots = 2", 'slots = 2\naliases = ["c"]'))
    for name in ("c", "coder"):
        (call,) = with_pin(day, name, ("garage/3090", "garage/0")).calls
        assert (call.draft.model, call.draft.targets) == ("coder", ("garage/3090", "garage/0"))
    with pytest.raises(InvalidArgument, match="there is no model 'code'; known are coder, c, chat"):
        with_pin(day, "code", ("garage",))


def test_a_pin_takes_the_place_of_the_one_in_the_file(tmp_path: Path) -> None:
    pinned = FILE.replace('mode = "prefer"', 'mode = "pin"\nkeep_loaded = true\nid = "mine"')
    day = day_of(tmp_path, pinned)
    moved = with_pin(day, "chat", ("garage/3090",))
    assert len(moved.settings) == len(day.settings) - 1
    (call,) = moved.calls
    assert (call.draft.assignment_id, call.draft.keep_loaded, call.draft.origin) == ("mine", True, Origin.CALL)
    assert with_pin(day, "coder", ("garage",)).settings == day.settings


def test_apps_of_work_have_to_be_in_the_file(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    file = tmp_path / "day.toml"
    refuse_unknown_apps(file, day, day.work)
    with pytest.raises(SettingsError, match=r"has no \[apps.eve\], of which there is work"):
        refuse_unknown_apps(file, day, [Arrival(0.0, "eve", "chat", "", TrueSize(1, 1))])


def test_machines_and_work_may_come_from_elsewhere(tmp_path: Path) -> None:
    hosts = day_of(tmp_path).plan.hosts
    file = tmp_path / "settings.toml"
    file.write_text(FILE[: FILE.index("[simulate.hosts")])
    assert day_of_file(file, HOUR, 1, hosts=hosts, has_work=False).plan.hosts == hosts
    with pytest.raises(SettingsError, match=r"\[simulate.hosts.NAME\]"):
        day_of_file(file, HOUR, 1, has_work=False)
    with pytest.raises(SettingsError, match=r"has no \[\[simulate.work\]\]"):
        day_of_file(file, HOUR, 1, hosts=hosts)


def test_work_comes_again_each_day_whatever_order_it_is_in(tmp_path: Path) -> None:
    week = day_of(tmp_path, lasts_s=7 * DAY_S)
    hours = [one.at % DAY_S / HOUR for one in week.work]
    assert 1 <= min(hours) <= max(hours) < 3
    assert len({one.at // DAY_S for one in week.work}) == 7
    other = '[[simulate.work]]\nmodel = "chat"\nper_hour = 10\nprompt_tokens = 5\noutput_tokens = 5\n'
    before = FILE.replace("[[simulate.work]]", f"{other}[[simulate.work]]")
    assert day_of(tmp_path, before).work == day_of(tmp_path, FILE + other).work


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla T4", "T4"),
        ("RTX 3060 Ti", "RTX 3060 Ti"),
    ],
)
def test_cards_are_known_as_their_driver_calls_them(told: str, name: str) -> None:
    assert plain_name(told) == name
    assert name in GB_PER_S


def test_the_work_stays_where_all_else_is_of_another_file(tmp_path: Path) -> None:
    day, other = day_of(tmp_path), day_of(tmp_path, FILE.replace("garage", "cellar").replace("= 500", "= 7"))
    mixed = day.instead(other)
    assert mixed.plan.hosts[0].node_id == "cellar"
    assert {one.work.tokens_in for one in mixed.work} == {500}
    assert mixed.work[0].work == TrueSize(500, day.work[0].work.tokens_out)
