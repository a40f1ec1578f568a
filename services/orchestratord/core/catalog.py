"""The models that tasks may name."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llorch.errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from llorch.gguf.layers import Layer

# Conservative until a worker reads the model's own metadata before it is placed: small enough to load everywhere.
DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4


class ModelState(StrEnum):
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"


class Origin(StrEnum):
    DEFAULT = "DEFAULT"
    FILE = "FILE"
    CALL = "CALL"
    PACKAGE = "PACKAGE"


# A later registration replaces an earlier one only if its origin is at least as strong: the settings file wins.
_STRENGTH: Mapping[Origin, int] = {Origin.DEFAULT: 0, Origin.PACKAGE: 1, Origin.CALL: 2, Origin.FILE: 3}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as its owner describes it; None = the default. `context` is in tokens, the rest as the names say."""

    name: str
    source: str
    aliases: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    cache_type: str = "f16"
    split: str = "auto"
    split_shares: tuple[float, ...] = ()
    idle_unload_s: float | None = None
    vram_claim_mib: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the memory of a model follows from, by its file. The fields are those of `llorch.gguf.facts.ModelFacts`."""

    architecture: str
    context_trained: int
    layers: tuple[Layer, ...]
    window: int
    vocabulary_size: int
    activation_width: int
    weight_bytes: int
    embedding_bytes: int
    output_bytes: int
    tied_output: bool


@dataclass(slots=True)
class Model:
    spec: ModelSpec
    origin: Origin
    provenance: str
    registered_at: float
    state: ModelState = ModelState.ACTIVE
    size_mib: int | None = None
    facts: ModelFacts | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def context(self) -> int:
        """Tokens that one request may use, as asked for; a worker lowers it to what the model was trained with."""
        return self.spec.context or DEFAULT_CONTEXT

    @property
    def slots(self) -> int:
        return self.spec.slots or DEFAULT_SLOTS

    @property
    def cache_type(self) -> str:
        return self.spec.cache_type

    @property
    def split(self) -> str:
        return self.spec.split

    @property
    def split_shares(self) -> tuple[float, ...]:
        return self.spec.split_shares

    @property
    def vram_claim_mib(self) -> int | None:
        return self.spec.vram_claim_mib


@dataclass(slots=True)
class Catalog:
    """Models by name and alias. Names are unique over both."""

    _models: dict[str, Model] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)

    def register(self, spec: ModelSpec, origin: Origin, provenance: str, now: float) -> Model:
        old = self._models.get(spec.name)
        if old is not None and _STRENGTH[old.origin] > _STRENGTH[origin]:
            raise FailedPrecondition(
                Reason.NOT_PERMITTED,
                f"model '{spec.name}' is defined in the settings file, which wins; change it there",
            )
        self._check_names_are_free(spec)
        if old is not None:
            self._forget_aliases(old)
        model = Model(spec, origin, provenance, now)
        if old is not None and old.spec.source == spec.source:
            model.size_mib, model.facts = old.size_mib, old.facts
        self._models[spec.name] = model
        for alias in spec.aliases:
            self._aliases[alias] = spec.name
        return model

    def delete(self, name: str) -> Model:
        model = self.get(name)
        if model.origin is Origin.FILE:
            raise FailedPrecondition(
                Reason.NOT_PERMITTED, f"model '{model.name}' is defined in the settings file; remove it there"
            )
        self._forget_aliases(model)
        return self._models.pop(model.name)

    def get(self, name: str) -> Model:
        """By exact name, then by alias; otherwise refused with the nearest names. Never a silent substitution."""
        model = self.find(name)
        if model is None:
            raise NotFound(Reason.MODEL_NOT_FOUND, self._unknown(name), metadata={"model": name[:128]})
        return model

    def find(self, name: str) -> Model | None:
        return self._models.get(name) or self._models.get(self._aliases.get(name, ""))

    def get_active(self, name: str) -> Model:
        model = self.get(name)
        if model.state is ModelState.RETIRED:
            raise FailedPrecondition(
                Reason.MODEL_RETIRED, f"model '{model.name}' is retired; set it ACTIVE again or use another"
            )
        return model

    def all(self) -> list[Model]:
        return [self._models[name] for name in sorted(self._models)]

    def _check_names_are_free(self, spec: ModelSpec) -> None:
        if owner := self._aliases.get(spec.name):
            raise AlreadyExists(
                Reason.INVALID_FIELD, f"'{spec.name}' is an alias of model '{owner}'; choose another name"
            )
        for alias in spec.aliases:
            owner = alias if alias in self._models and alias != spec.name else self._aliases.get(alias)
            if owner is not None and owner != spec.name:
                raise AlreadyExists(
                    Reason.INVALID_FIELD, f"alias '{alias}' already means model '{owner}'; choose another"
                )

    def _forget_aliases(self, model: Model) -> None:
        for alias in model.spec.aliases:
            self._aliases.pop(alias, None)

    def _unknown(self, name: str) -> str:
        known = [*self._models, *self._aliases]
        if not known:
            return f"no model is called '{name[:128]}', and none is registered yet; add one with `llorch models add`"
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        return f"no model is called '{name[:128]}'; the nearest names are: {', '.join(nearest)}"
