"""A day that is to be simulated: [simulate.…] of a settings file, and what that file says of models, apps and rules."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from llorch.assignment_mode import Mode
from llorch.errors import invalid_field
from llorch.identifiers import check_id
from llorch.settings import SettingsError
from llorch.simulated_gpu import parse_simulated_gpu
from orchestratord.app_sources import apps_of_file
from orchestratord.assignment_sources import assignments_of_file
from orchestratord.core import events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.model_sources import models_of_file
from orchestratord.quantities import MiB, Seconds
from orchestratord.settings_tables import Heading, SettingsTable, listed_tables, named_tables
from orchestratord.simulation.cards import speed_of, tokens_per_s
from orchestratord.simulation.day import MOST_ARRIVALS, Day, Stream, drawn
from orchestratord.simulation.plan import Chances, DevicePlan, HostPlan, ModelPlan, WorldPlan

_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
_Speed = Annotated[float, Field(gt=0, le=100_000)]
_DEFAULT_SLOTS = 4
_LATE_S, _MEMORY_RETURNS_AFTER_S = 0.002, 0.5


class SimulatedHost(SettingsTable):
    """One table [simulate.hosts.NAME]: a machine with GPUs."""

    gpus: tuple[str, ...] = Field(description='Its GPUs in their order, such as ["RTX 3090:24GiB", "RTX 3060:12GiB"].')
    disk: MiB = Field(
        1500, ge=1, description='What it reads of model files per second, such as "3GiB". Default: 1500 MiB.'
    )


class SimulatedModel(SettingsTable):
    """One table [simulate.models.NAME]: how fast a model of the file is."""

    tokens_per_s: dict[str, _Speed] = Field(
        description='Of one answer alone, by the name of the card, such as { "RTX 3090" = 95 }. Elsewhere by how '
        "fast the card reads the model's memory."
    )


class SimulatedWork(SettingsTable):
    """One table [[simulate.work]]: tasks that come again and again, as if by chance."""

    app: str = Field("", description="The app that asks; else none.")
    model: str = Field(description="The model, as the app would say it.")
    per_hour: float = Field(gt=0, le=1_000_000, description="Tasks per hour, at the mean.")
    prompt_tokens: _Tokens | tuple[_Tokens, _Tokens] = Field(
        description="Tokens of a prompt, or the least and the most, as [500, 4000]."
    )
    output_tokens: _Tokens | tuple[_Tokens, _Tokens] = Field(
        description="Tokens of an answer, or the least and the most, as [20, 400]."
    )
    priority: str = Field("", description="Priority class; else the app's.")
    at_once: int = Field(1, ge=1, le=10_000, description="So many of them come together each time.")
    begin: Seconds = Field(
        0.0, description='When they begin to come, since the day began, such as "9h". Default: at once.'
    )
    end: Seconds | None = Field(None, description='When they come no more, such as "17h". Default: when the day ends.')
    deadline: Seconds | None = Field(
        None, description='In which time each has to be done, such as "30s". Default: none.'
    )


def day_of_file(file: Path, lasts_s: float, seed: int) -> Day:
    """Raises SettingsError that names the file, the table and the key."""
    settings = _settings(file)
    specs = {event.spec.name: event.spec for event in settings if isinstance(event, events.ModelRegistered)}
    hosts = _hosts(file)
    if not hosts or not specs:
        missing = "[simulate.hosts.NAME]" if specs else "[models.NAME]"
        raise SettingsError(f"{file}: has no {missing}, so there is nothing to simulate; add what there is")
    plan = WorldPlan(
        seed=seed,
        hosts=hosts,
        models=tuple(_models(file, specs)),
        faults=Chances(late_s=_LATE_S, memory_returns_after_s=_MEMORY_RETURNS_AFTER_S),
    )
    return Day(plan, settings, drawn(list(_streams(file, settings, lasts_s)), seed), lasts_s)


def with_gpu(day: Day, node_id: str, gpu: str) -> Day:
    """With another GPU in a machine; in a new one if the day has none of this name."""
    check_id(node_id, "add_gpu")
    hosts = {host.node_id: host for host in day.plan.hosts}
    host = hosts.get(node_id) or HostPlan(node_id, (), SimulatedHost(gpus=()).disk)
    hosts[node_id] = replace(host, devices=(*host.devices, _device(node_id, len(host.devices), gpu)))
    return replace(day, plan=day.plan.with_(hosts=tuple(hosts.values())))


def with_pin(day: Day, model: str, place: str) -> Day:
    """With a model that runs at this place alone. Raises InvalidArgument for a model that the day does not have."""
    if model not in (known := [one.name for one in day.plan.models]):
        raise invalid_field("pin", f"there is no model '{model}'; known are {', '.join(known)}")
    rule = Assignment("", model, "", (place,), Mode.PIN, origin=Origin.FILE)
    return replace(day, settings=(*day.settings, events.AssignmentSet(rule)))


def _settings(file: Path) -> tuple[events.Event, ...]:
    """Models first, since apps and rules name them. The simulation stages files of its own."""
    found: list[events.Event] = []
    for heading, event in models_of_file(file):
        if event.spec.vram_claim_mib is None:
            raise heading.refuse("vram_claim: is needed here, since the simulation does not read the model's file")
        found.append(replace(event, spec=replace(event.spec, source=f"file:/models/{event.spec.name}.gguf")))
    found += [event for _, event in apps_of_file(file)]
    found += [event for _, event in assignments_of_file(file)]
    return tuple(found)


def _hosts(file: Path) -> tuple[HostPlan, ...]:
    hosts = []
    for heading, name, table in named_tables(file, "simulate.hosts", SimulatedHost):
        with heading:
            devices = tuple(_device(name, index, gpu) for index, gpu in enumerate(table.gpus))
        hosts.append(HostPlan(name, devices, float(table.disk)))
    return tuple(hosts)


def _device(node_id: str, index: int, gpu: str) -> DevicePlan:
    parsed = parse_simulated_gpu(gpu)
    return DevicePlan(f"GPU-{node_id}-{index}", parsed.name, parsed.memory_mib, 0, speed_of(parsed.name))


def _models(file: Path, specs: dict[str, ModelSpec]) -> Iterator[ModelPlan]:
    measured = {}
    for heading, name, table in named_tables(file, "simulate.models", SimulatedModel):
        if name not in specs:
            raise heading.refuse(f"there is no [models.{name}]; known are {', '.join(specs)}")
        measured[name] = tuple(table.tokens_per_s.items())
    for name, spec in specs.items():
        mib = spec.vram_claim_mib or 0
        yield ModelPlan(
            name, mib, mib, spec.slots or _DEFAULT_SLOTS, tokens_per_s(mib), measured=measured.get(name, ())
        )


def _streams(file: Path, settings: Sequence[events.Event], lasts_s: float) -> Iterator[Stream]:
    expected, apps = 0.0, {event.app.name: event.app for event in settings if isinstance(event, events.AppDefined)}
    models = {
        name
        for event in settings
        if isinstance(event, events.ModelRegistered)
        for name in (event.spec.name, *event.spec.aliases)
    }
    for heading, _, table in listed_tables(file, "simulate.work", SimulatedWork):
        if table.app and table.app not in apps:
            raise heading.refuse(f"app: there is no [apps.{table.app}]; known are {', '.join(apps) or 'none'}")
        known = models | (apps[table.app].models.keys() if table.app else set())
        if table.model not in known:
            raise heading.refuse(f"model: none is called '{table.model}'; known are {', '.join(sorted(known))}")
        stream = _stream(heading, table, lasts_s)
        expected += stream.expected
        if expected > MOST_ARRIVALS:
            raise heading.refuse(
                f"per_hour: about {round(expected)} tasks would come; at most {MOST_ARRIVALS} can be simulated; make "
                "the day shorter"
            )
        yield stream


def _stream(heading: Heading, table: SimulatedWork, lasts_s: float) -> Stream:
    if table.end is not None and table.begin >= table.end:
        raise heading.refuse("begin: has to be before the end")
    ends_s = lasts_s if table.end is None else min(table.end, lasts_s)
    return Stream(
        table.app,
        table.model,
        table.per_hour,
        _range(heading, "prompt_tokens", table.prompt_tokens),
        _range(heading, "output_tokens", table.output_tokens),
        table.priority,
        table.at_once,
        min(table.begin, ends_s),
        ends_s,
        table.deadline,
    )


def _range(heading: Heading, key: str, tokens: int | tuple[int, int]) -> tuple[int, int]:
    least, most = (tokens, tokens) if isinstance(tokens, int) else tokens
    if least > most:
        raise heading.refuse(f"{key}: [{least}, {most}] has the most before the least")
    return least, most
