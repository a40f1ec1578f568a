"""A day that is to be simulated: [simulate.…] of a settings file, and what that file says of models, apps and rules."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
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
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.state import BrainConfig
from orchestratord.model_sources import models_of_file
from orchestratord.quantities import MiB, Seconds
from orchestratord.settings_tables import Heading, SettingsTable, listed_tables, named_tables, refuse_unknown_tables
from orchestratord.simulation.cards import GB_PER_S, plain_name, tokens_per_gb_per_s
from orchestratord.simulation.day import DAY_S, MOST_ARRIVALS, Arrival, Day, Stream, drawn
from orchestratord.simulation.plan import Chances, DevicePlan, HostPlan, ModelPlan, WorldPlan

Cards = Mapping[str, float]
"""What a card of this name reads, in GB/s."""

_Tokens = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
_Speed = Annotated[float, Field(gt=0, le=100_000)]
_LATE_S, _MEMORY_RETURNS_AFTER_S = 0.002, 0.5
_PRIORITIES = BrainConfig().priorities


class SimulatedHost(SettingsTable):
    """One table [simulate.hosts.NAME]: a machine with GPUs."""

    gpus: tuple[str, ...] = Field(description='Its GPUs in their order, such as ["RTX 3090:24GiB", "RTX 3060:12GiB"].')
    disk: MiB = Field(
        1500, ge=1, description='What it reads of model files per second, such as "3GiB". Default: 1500 MiB.'
    )


class SimulatedCard(SettingsTable):
    """One table [simulate.cards.NAME]: a card whose speed is not known here, or another one than its data sheet's."""

    gb_per_s: _Speed = Field(description=f"What it reads of its memory. Known are: {', '.join(GB_PER_S)}.")


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
    per_hour: float = Field(
        ge=0.001, le=1_000_000, description="Tasks per hour at the mean, each of those counted that come together."
    )
    prompt_tokens: _Tokens | tuple[_Tokens, _Tokens] = Field(
        description="Tokens of a prompt, or the least and the most, as [500, 4000]."
    )
    output_tokens: _Tokens | tuple[_Tokens, _Tokens] = Field(
        description="Tokens of an answer, or the least and the most, as [20, 400]."
    )
    priority: str = Field("", description="Priority class; else the app's.")
    at_once: int = Field(
        1,
        ge=1,
        le=10_000,
        description="So many of them come together: 60 per hour, 10 at once, come 6 times.",
    )
    begin: Seconds = Field(0.0, description='From when on they come, each day, such as "9h". Default: its beginning.')
    end: Seconds = Field(DAY_S, description='Until when they come, each day, such as "17h". Default: its end.')
    deadline: Seconds | None = Field(
        None, description='In which time each has to be done, such as "30s". Default: none.'
    )


def day_of_file(file: Path, lasts_s: float, seed: int, *, hosts: Sequence[HostPlan] = (), has_work: bool = True) -> Day:
    """Raises SettingsError that names the file, the table and the key. `hosts`: where the file has none. Without
    `has_work` the file's work is not looked at.
    """
    refuse_unknown_tables(file, "simulate", ("hosts", "cards", "models", "work"))
    settings = _settings(file)
    specs = {event.spec.name: event.spec for event in settings if isinstance(event, events.ModelRegistered)}
    cards = _cards(file)
    hosts = _hosts(file, cards) or tuple(hosts)
    if not hosts or not specs:
        missing = "[simulate.hosts.NAME]" if specs else "[models.NAME]"
        raise SettingsError(f"{file}: has no {missing}, so there is nothing to simulate; add what there is")
    plan = WorldPlan(
        seed=seed,
        hosts=hosts,
        models=tuple(_models(file, specs, cards)),
        faults=Chances(late_s=_LATE_S, memory_returns_after_s=_MEMORY_RETURNS_AFTER_S),
    )
    streams = list(_streams(file, settings, lasts_s)) if has_work else []
    if has_work and not streams:
        raise SettingsError(f"{file}: has no [[simulate.work]], so nothing would happen; add the tasks that come")
    return Day(plan, settings, drawn(streams, seed, lasts_s), lasts_s)


def refuse_unknown_apps(file: Path, day: Day, work: Iterable[Arrival]) -> None:
    """Work of an app that a file does not have would silently count with another weight and priority."""
    known = {name for name, _ in _apps(day.settings)}
    for app in sorted({arrival.app for arrival in work} - known - {""}):
        raise SettingsError(f"{file}: has no [apps.{app}], of which there is work; add it")


def with_gpu(day: Day, file: Path, node_id: str, gpu: str) -> Day:
    """With another GPU in a machine; in a new one if the day has none of this name. Its speed may be in the file."""
    check_id(node_id, "add_gpu")
    hosts = {host.node_id: host for host in day.plan.hosts}
    host = hosts.get(node_id) or HostPlan(node_id, (), SimulatedHost(gpus=()).disk)
    device = _device("add_gpu", node_id, len(host.devices), gpu, _cards(file))
    hosts[node_id] = replace(host, devices=(*host.devices, device))
    return replace(day, plan=day.plan.with_(hosts=tuple(hosts.values())))


def with_pin(day: Day, model: str, places: tuple[str, ...]) -> Day:
    """With a model that runs at these places alone, which an operator says once the hosts are there. A pin that the
    settings have for it is theirs no more, but for what else it says. Raises InvalidArgument for an unknown model.
    """
    names = {
        name: event.spec.name
        for event in day.settings
        if isinstance(event, events.ModelRegistered)
        for name in (event.spec.name, *event.spec.aliases)
    }
    if model not in names:
        raise invalid_field("pin", f"there is no model '{model}'; known are {', '.join(names)}")
    pins = [
        event
        for event in day.settings
        if isinstance(event, events.AssignmentSet)
        and (event.draft.mode, event.draft.app) == (Mode.PIN, "")
        and names.get(event.draft.model) == names[model]
    ]
    rule = pins[0].draft if pins else Assignment("", names[model], "", (), Mode.PIN)
    call = events.AssignmentSet(replace(rule, targets=places, origin=Origin.CALL))
    settings = tuple(event for event in day.settings if event not in pins)
    return replace(day, settings=settings, calls=(*day.calls, call))


def _settings(file: Path) -> tuple[events.Event, ...]:
    """Models first, since apps and rules name them. The simulation stages files of its own."""
    found: list[events.Event] = []
    for heading, model in models_of_file(file):
        if model.spec.vram_claim_mib is None:
            raise heading.refuse("vram_claim: is needed here, since the simulation does not read the model's file")
        found.append(replace(model, spec=replace(model.spec, source=f"file:/models/{model.spec.name}.gguf")))
    for heading, app in apps_of_file(file):
        _refuse_unknown_priority(heading, app.app.priority)
        found.append(app)
    found += [event for _, event in assignments_of_file(file)]
    return tuple(found)


def _apps(settings: Iterable[events.Event]) -> Iterator[tuple[str, App]]:
    return ((event.app.name, event.app) for event in settings if isinstance(event, events.AppDefined))


def _cards(file: Path) -> Cards:
    own = named_tables(file, "simulate.cards", SimulatedCard, by_id=False)
    return GB_PER_S | {plain_name(name): table.gb_per_s for _, name, table in own}


def _hosts(file: Path, cards: Cards) -> tuple[HostPlan, ...]:
    hosts = []
    for heading, name, table in named_tables(file, "simulate.hosts", SimulatedHost):
        with heading:
            devices = tuple(_device("gpus", name, index, gpu, cards) for index, gpu in enumerate(table.gpus))
        hosts.append(HostPlan(name, devices, float(table.disk)))
    return tuple(hosts)


def _device(field: str, node_id: str, index: int, gpu: str, cards: Cards) -> DevicePlan:
    """Its speed is in GB/s."""
    parsed = parse_simulated_gpu(gpu, field)
    name = plain_name(parsed.name)
    if name not in cards:
        raise invalid_field(field, _unknown_card(parsed.name, cards))
    return DevicePlan(f"GPU-{node_id}-{index}", name, parsed.memory_mib, 0, cards[name])


def _unknown_card(name: str, cards: Cards) -> str:
    near = get_close_matches(name.upper(), cards, n=3, cutoff=0.4)
    hint = f"near are {', '.join(near)}; else " if near else ""
    return f"how fast '{name}' is, is not known; {hint}say it in the file: [simulate.cards.\"{name}\"], gb_per_s"


def _models(file: Path, specs: Mapping[str, ModelSpec], cards: Cards) -> Iterator[ModelPlan]:
    """`decode_tokens_per_s` for each GB/s of a card."""
    measured = {}
    for heading, name, table in named_tables(file, "simulate.models", SimulatedModel):
        if name not in specs:
            raise heading.refuse(f"there is no [models.{name}]; known are {', '.join(specs)}")
        for card in table.tokens_per_s:
            if plain_name(card) not in cards:
                raise heading.refuse(f"tokens_per_s: {_unknown_card(card, cards)}")
        measured[name] = tuple((plain_name(card), speed) for card, speed in table.tokens_per_s.items())
    for name, spec in specs.items():
        mib = spec.vram_claim_mib or 0
        yield ModelPlan(name, mib, mib, tokens_per_gb_per_s(mib), measured.get(name, ()))


def _streams(file: Path, settings: Sequence[events.Event], lasts_s: float) -> Iterator[Stream]:
    expected, apps = 0.0, dict(_apps(settings))
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
        _refuse_unknown_priority(heading, table.priority)
        stream = _stream(heading, table)
        expected += stream.expected(lasts_s)
        if expected > MOST_ARRIVALS:
            raise heading.refuse(
                f"per_hour: about {round(expected)} tasks would come; at most {MOST_ARRIVALS} can be simulated; make "
                "the day shorter"
            )
        yield stream


def _refuse_unknown_priority(heading: Heading, priority: str) -> None:
    if priority and priority not in _PRIORITIES:
        raise heading.refuse(f"priority: '{priority}' is none of: {', '.join(_PRIORITIES)}")


def _stream(heading: Heading, table: SimulatedWork) -> Stream:
    if not table.begin < table.end <= DAY_S:
        raise heading.refuse("begin and end: are times of a day, from 0h to 24h, the beginning first")
    return Stream(
        table.app,
        table.model,
        table.per_hour,
        _range(heading, "prompt_tokens", table.prompt_tokens),
        _range(heading, "output_tokens", table.output_tokens),
        table.priority,
        table.at_once,
        table.begin,
        table.end,
        table.deadline,
    )


def _range(heading: Heading, key: str, tokens: int | tuple[int, int]) -> tuple[int, int]:
    least, most = (tokens, tokens) if isinstance(tokens, int) else tokens
    if least > most:
        raise heading.refuse(f"{key}: [{least}, {most}] has the most before the least")
    return least, most
