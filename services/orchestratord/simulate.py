"""Simulates a day, and tells what became of it as JSON. `llorch simulate` runs this and shows it."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llorch.errors import LlorchError, invalid_field
from llorch.lifeline import end_with_parent
from llorch.quantities import seconds
from llorch.settings import load
from orchestratord.brain_config import brain_config_of
from orchestratord.core.state import BrainConfig
from orchestratord.day_file import day_of_file, refuse_unknown_apps, with_gpu, with_pin
from orchestratord.settings import OrchestratorSettings
from orchestratord.simulation.day import DAY_S, Arrival, Day
from orchestratord.simulation.replay import replay
from orchestratord.simulation.true_size import TrueSize

MOST_DAYS = 31
REFUSED = 3
"""Exit code where stderr says, in one line, what can't be simulated."""


def main(arguments: Sequence[str]) -> int:
    end_with_parent()
    try:
        given = _parser().parse_args(arguments)
        sys.stdout.write(json.dumps(_simulated(given), ensure_ascii=False) + "\n")
    except LlorchError as error:
        sys.stderr.write(error.message + "\n")
        return REFUSED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--instead", type=Path)
    parser.add_argument("--add-gpu", action="append", default=[])
    parser.add_argument("--pin", action="append", default=[])
    parser.add_argument("--log", type=Path)
    parser.add_argument("--lasts", default="24h")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _simulated(given: argparse.Namespace) -> dict[str, object]:
    """`now` is the day of the file; `then` the same work with what was changed, if anything was."""
    config = _config(given.file)
    day = day_of_file(given.file, _lasts_s(given.lasts), given.seed, has_work=given.log is None)
    if given.log:
        day = day.with_work(_arrivals(json.loads(given.log.read_text())))
        refuse_unknown_apps(given.file, day, day.work)
    days = {"now": (day, config)}
    if given.instead or given.add_gpu or given.pin:
        days["then"] = _changed(given, day, config)
    told: dict[str, object] = {"tasks": len(day.work), "lasts_s": day.lasts_s}
    return told | {name: dataclasses.asdict(replay(*one)) for name, one in days.items()}


def _lasts_s(text: str) -> float:
    try:
        lasts_s = seconds(text)
    except ValueError as error:
        raise invalid_field("lasts", str(error)) from None
    if not 0 < lasts_s <= MOST_DAYS * DAY_S:
        raise invalid_field("lasts", f"has to be above 0, and at most {MOST_DAYS}d")
    return lasts_s


def _arrivals(tasks: Sequence[Mapping[str, Any]]) -> Iterator[Arrival]:
    """Of tasks that came to an orchestrator, as `llorch simulate` writes them."""
    for task in tasks:
        work = TrueSize(task["tokens_in"], task["tokens_out"])
        yield Arrival(task["at"], task["app"], task["model"], task["priority"], work)


def _changed(given: argparse.Namespace, day: Day, config: BrainConfig) -> tuple[Day, BrainConfig]:
    file = given.instead or given.file
    if given.instead:
        config = _config(file)
        other = day_of_file(file, day.lasts_s, given.seed, hosts=day.plan.hosts, has_work=False)
        refuse_unknown_apps(file, other, day.work)
        day = day.instead(other)
    for gpu in given.add_gpu:
        day = with_gpu(day, file, *_parted("add_gpu", gpu, "NODE=NAME:SIZE"))
    places: dict[str, tuple[str, ...]] = {}
    for pin in given.pin:
        model, place = _parted("pin", pin, "MODEL=PLACE")
        places[model] = (*places.get(model, ()), place)
    for model, named in places.items():
        day = with_pin(day, model, named)
    return day, config


def _config(file: Path) -> BrainConfig:
    return brain_config_of(load(OrchestratorSettings, ["--config", str(file)], env={}))


def _parted(field: str, text: str, form: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise invalid_field(field, f"'{text}' is not {form}")
    return name, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
