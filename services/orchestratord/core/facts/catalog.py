"""The models that tasks may name.

A model may have several descriptions: of the package that brings it, of a call, of the settings file. Each may leave
values out. Each value comes from the strongest description that has it, else it is the default.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from llorch.errors import AlreadyExists, FailedPrecondition, NotFound, Reason, invalid_field
from orchestratord.core.facts.model import (
    Description,
    Model,
    ModelRecord,
    ModelSpec,
    ModelState,
    Origin,
    SourceFacts,
    said,
)

_STRONGEST_FIRST = (Origin.FILE, Origin.CALL, Origin.PACKAGE, Origin.NODE)


@dataclass(slots=True)
class Catalog:
    """Models by name and alias. Names are unique over both; a weaker origin gives up an alias that a stronger needs.

    A model is replaced by a new object whenever a description of it changes: keep its name, not the object.
    """

    _descriptions: dict[str, dict[Origin, Description]] = field(default_factory=dict)
    _retired: set[str] = field(default_factory=set)
    _sources: dict[str, SourceFacts] = field(default_factory=dict)
    _models: dict[str, Model] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)
    _by_source: dict[str, set[str]] = field(default_factory=dict)

    def register(self, spec: ModelSpec, origin: Origin, provenance: str, at_ms: float = 0) -> Model:
        """Take in one origin's description, in place of its earlier one; refused if it is invalid or overruled."""
        said_now = Description(spec, origin, provenance, at_ms)
        merged = self.preview(said_now)
        for alias in self._names_to_take_over(said_now):
            self._give_up_alias(alias)
        self._descriptions.setdefault(spec.name, {})[origin] = said_now
        return self._put(merged)

    def preview(self, said_now: Description) -> Model:
        """What a model would come to. Refuses what `register` refuses, and changes nothing."""
        descriptions = self._descriptions.get(said_now.spec.name, {})
        _refuse_overruled(said_now, descriptions.values())
        merged = _merge({**descriptions, said_now.origin: said_now})
        if not merged.spec.source:
            name = said_now.spec.name
            raise invalid_field("source", f"model '{name}' has none yet; for example file:/models/{name}.gguf")
        self._names_to_take_over(said_now)
        merged.state = self.state_of(merged.name)
        _know(merged, self.known_of(merged.spec.source))
        return merged

    def restore(self, record: ModelRecord) -> None:
        """What calls had set for a model is in force again, whatever is there now."""
        self.set_state(record.name, record.state)
        if record.spec is None:
            self.withdraw(record.name, Origin.CALL)
            return
        said_then = Description(record.spec, Origin.CALL, record.provenance, record.at_ms)
        self._descriptions.setdefault(record.name, {})[Origin.CALL] = said_then
        self._describe_anew(record.name)

    def withdraw(self, name: str, origin: Origin) -> None:
        """Forget one origin's description of a model; the model is gone if no other description has its file."""
        self._descriptions.get(name, {}).pop(origin, None)
        self._describe_anew(name)

    def refuse_to_delete(self, model: Model) -> None:
        """Calls can take away what they have set, and not what a package or the settings file keeps in the catalog."""
        descriptions = self._descriptions[model.name]
        if Origin.FILE in descriptions:
            raise FailedPrecondition(
                Reason.SET_ELSEWHERE, f"model '{model.name}' is defined in the settings file; remove it there"
            )
        if Origin.CALL not in descriptions:
            raise FailedPrecondition(
                Reason.SET_ELSEWHERE,
                f"model '{model.name}' comes with {model.provenance}; retire it to keep tasks from it "
                f"(`llorch models retire {model.name}`)",
            )

    def set_state(self, name: str, state: ModelState) -> None:
        """Kept for a name, also while no model has it."""
        if state is ModelState.RETIRED:
            self._retired.add(name)
        else:
            self._retired.discard(name)
        if model := self._models.get(name):
            model.state = state

    def learn(self, learnt: SourceFacts) -> None:
        """Facts of the file of a source; they hold for every model that has it."""
        self._sources[learnt.source] = learnt
        for name in self._by_source.get(learnt.source, ()):
            _know(self._models[name], learnt)

    def forget_source(self, source: str) -> SourceFacts | None:
        """What was known of a file that no model has."""
        return self._sources.pop(source, None)

    def unclaimed_sources(self) -> list[str]:
        """Files of no model of which something is known, in the order in which that was learnt first. Linear."""
        return [source for source in self._sources if source not in self._by_source]

    def known_of(self, source: str) -> SourceFacts:
        return self._sources.get(source) or SourceFacts(source)

    def described(self, name: str, origin: Origin) -> Description | None:
        """One origin's description of a model."""
        return self._descriptions.get(name, {}).get(origin)

    def record_of(self, name: str) -> ModelRecord | None:
        """What has to be stored of a model, because only calls have set it; None for nothing."""
        return model_record(name, self.state_of(name), self.described(name, Origin.CALL))

    def state_of(self, name: str) -> ModelState:
        return ModelState.RETIRED if name in self._retired else ModelState.ACTIVE

    def get(self, name: str) -> Model:
        """By exact name, then by alias; otherwise refused with the nearest names. Never a silent substitution."""
        model = self.find(name)
        if model is None:
            raise NotFound(Reason.MODEL_NOT_FOUND, self._unknown(name), metadata={"model": name[:128]})
        return model

    def has(self, name: str) -> bool:
        """As the name of a model, not as an alias."""
        return name in self._models

    def is_described(self, name: str, *, without: Origin) -> bool:
        """Whether another origin than this one says something of the model."""
        return any(origin is not without for origin in self._descriptions.get(name, ()))

    def find(self, name: str) -> Model | None:
        return self._models.get(name) or self._models.get(self._aliases.get(name, ""))

    def get_active(self, name: str) -> Model:
        model = self.get(name)
        if model.state is ModelState.RETIRED:
            raise FailedPrecondition(
                Reason.MODEL_RETIRED,
                f"model '{model.name}' is retired; set its state to ACTIVE (`llorch models activate {model.name}`), or "
                "use another",
            )
        return model

    def all(self) -> list[Model]:
        return [self._models[name] for name in sorted(self._models)]

    def by_source(self, source: str) -> list[Model]:
        return [self._models[name] for name in sorted(self._by_source.get(source, ()))]

    def __len__(self) -> int:
        return len(self._models)

    def _describe_anew(self, name: str) -> None:
        """What calls have set for a model is kept also while the package or the node is gone that had its file."""
        descriptions = self._descriptions.get(name, {})
        if descriptions and (merged := _merge(descriptions)).spec.source:
            self._put(merged)
            return
        self._remove(name)
        if not descriptions:
            self._descriptions.pop(name, None)

    def _put(self, model: Model) -> Model:
        self._remove(model.name)
        model.state = self.state_of(model.name)
        _know(model, self.known_of(model.spec.source))
        self._models[model.name] = model
        self._by_source.setdefault(model.spec.source, set()).add(model.name)
        free = tuple(alias for alias in model.spec.aliases if alias not in self._models and alias not in self._aliases)
        model.spec = replace(model.spec, aliases=free)
        self._aliases.update((alias, model.name) for alias in free)
        return model

    def _remove(self, name: str) -> None:
        model = self._models.pop(name, None)
        if model is None:
            return
        for alias in model.spec.aliases:
            if self._aliases.get(alias) == name:
                del self._aliases[alias]
        sharing = self._by_source[model.spec.source]
        sharing.discard(name)
        if not sharing:
            del self._by_source[model.spec.source]

    def _give_up_alias(self, alias: str) -> None:
        owner = self._models.get(self._aliases.pop(alias, ""))
        if owner is not None:
            rest = tuple(other for other in owner.spec.aliases if other != alias)
            owner.spec = replace(owner.spec, aliases=rest)

    def _names_to_take_over(self, said_now: Description) -> list[str]:
        """Aliases that other models would give up; refused if a model that does not give way has the name.

        Names that calls have set give way to the settings file, so that they never keep the orchestrator from starting.
        """
        spec, taken = said_now.spec, []
        for name in (spec.name, *spec.aliases):
            is_model = name != spec.name and name in self._models
            owner = name if is_model else self._aliases.get(name)
            if owner is None or owner == spec.name:
                continue
            if is_model or not self._gives_way(owner, said_now.origin):
                message = f"'{name}' already means model '{owner}'; choose another name"
                raise AlreadyExists(Reason.NAME_TAKEN, message)
            taken.append(name)
        return taken

    def _gives_way(self, owner: str, origin: Origin) -> bool:
        return origin is Origin.FILE and self._models[owner].origin is not Origin.FILE

    def _unknown(self, name: str) -> str:
        known = [*self._models, *self._aliases]
        if not known:
            return f"no model is called '{name[:128]}', and none is registered yet; add one with `llorch models add`"
        nearest = difflib.get_close_matches(name[:128], known, n=3, cutoff=0.0)
        return f"no model is called '{name[:128]}'; the nearest names are: {', '.join(nearest)}"


def model_record(name: str, state: ModelState, said: Description | None) -> ModelRecord | None:
    """What has to be stored of a model in this state that calls describe so; None for nothing."""
    if said is None:
        return ModelRecord(name, state) if state is ModelState.RETIRED else None
    return ModelRecord(name, state, said.spec, said.provenance, round(said.at_ms))


def _merge(descriptions: Mapping[Origin, Description]) -> Model:
    """Each value from the strongest description that has it."""
    heard = [descriptions[origin] for origin in _STRONGEST_FIRST if origin in descriptions]
    origins: dict[str, Origin] = {}
    values: dict[str, object] = {}
    for description in reversed(heard):
        for value in said(description.spec):
            origins[value] = description.origin
            values[value] = getattr(description.spec, value)
    first = heard[0]
    spec = ModelSpec(name=first.spec.name, **values)  # type: ignore[arg-type]  # they are of a ModelSpec
    return Model(spec, first.origin, first.provenance, first.at_ms, origins=origins)


def _refuse_overruled(said_now: Description, descriptions: Iterable[Description]) -> None:
    """A call with a value that would be overruled is refused. Packages just give way."""
    if said_now.origin is not Origin.CALL:
        return
    spec = said_now.spec
    for file in (description.spec for description in descriptions if description.origin is Origin.FILE):
        overruled = [value for value in said(spec) if value in said(file) and _differ(spec, file, value)]
        if overruled:
            raise FailedPrecondition(
                Reason.SET_ELSEWHERE,
                f"{', '.join(overruled)} of model '{spec.name}': set in the settings file, which wins; change it there",
            )


def _differ(one: ModelSpec, other: ModelSpec, value: str) -> bool:
    return bool(getattr(one, value) != getattr(other, value))


def _know(model: Model, known: SourceFacts) -> None:
    model.size_mib, model.facts, model.digest = known.size_mib, known.facts, known.digest
