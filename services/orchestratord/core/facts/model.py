"""A model as it is described, and what is known of its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from llorch.cache_type import CacheType
from llorch.gguf.facts import ModelFacts
from llorch.options.model import DEFAULT_CONTEXT, DEFAULT_SLOTS, LoadOptions
from llorch.split_mode import SplitMode


class ModelState(StrEnum):
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"


class Origin(StrEnum):
    """The origin of a value. MODEL is the model's own file, NODE a GPU host with the model in a folder of its own."""

    DEFAULT = "DEFAULT"
    MODEL = "MODEL"
    NODE = "NODE"
    PACKAGE = "PACKAGE"
    CALL = "CALL"
    FILE = "FILE"


@dataclass(frozen=True, slots=True)
class ModelSpec(LoadOptions):
    """One description of a model; None or empty = not set. `context` is in tokens, the rest as the names say."""

    name: str
    source: str = ""
    aliases: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    cache_type: CacheType | None = None
    split: SplitMode | None = None
    split_shares: tuple[float, ...] = ()
    idle_unload_s: float | None = None
    vram_claim_mib: int | None = None


VALUES = tuple(value.name for value in fields(ModelSpec) if value.name != "name")
"""What a description may set, by name."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of the file that a reference leads to. `digest` is its SHA-256 in hexadecimal, once asked for."""

    source: str
    size_mib: int | None = None
    facts: ModelFacts | None = None
    digest: str = ""

    @property
    def record_key(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What calls have set for a model: their description of it, if they gave one, and whether it takes tasks."""

    name: str
    state: ModelState = ModelState.ACTIVE
    spec: ModelSpec | None = None
    provenance: str = ""
    at_ms: int = 0

    @property
    def record_key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Description:
    """The description of one origin. `at_ms` is in milliseconds since 1970."""

    spec: ModelSpec
    origin: Origin
    provenance: str
    at_ms: float = 0


@dataclass(slots=True)
class Model:
    """`spec` merges all descriptions; `origin`, `provenance` and `registered_ms` are of the strongest.

    The properties are what counts: with defaults for what no description has.
    """

    spec: ModelSpec
    origin: Origin
    provenance: str
    registered_ms: float
    state: ModelState = ModelState.ACTIVE
    size_mib: int | None = None
    facts: ModelFacts | None = None
    digest: str = ""
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def context(self) -> int:
        """Tokens that one request may use: as asked for, else the default; never more than it was trained with."""
        return self.context_with(self.facts.context_trained if self.facts else 0)

    def context_with(self, trained: int) -> int:
        """The same for a file whose model was trained with so many; 0 = not known."""
        wanted = self.spec.context or DEFAULT_CONTEXT
        return min(wanted, trained) if trained else wanted

    @property
    def known_context(self) -> int | None:
        """None as long as it depends on a file that no node has looked at."""
        return self.context if self.spec.context or self.facts else None

    @property
    def slots(self) -> int:
        return self.spec.slots or DEFAULT_SLOTS

    @property
    def cache_type(self) -> CacheType:
        return self.spec.cache_type or CacheType.F16

    @property
    def split(self) -> SplitMode:
        return self.spec.split or SplitMode.AUTO

    @property
    def split_shares(self) -> tuple[float, ...]:
        return self.spec.split_shares

    @property
    def idle_unload_s(self) -> float | None:
        return self.spec.idle_unload_s

    @property
    def memory_is_known(self) -> bool:
        """Whether its memory can be estimated: its file was looked at, or its owner has set it."""
        return self.size_mib is not None or self.vram_claim_mib is not None

    @property
    def vram_claim_mib(self) -> int | None:
        return self.spec.vram_claim_mib

    def origin_of(self, value: str) -> Origin:
        """The origin of one of VALUES."""
        trained = self.facts.context_trained if self.facts else 0
        if value == "context" and 0 < trained < (self.spec.context or DEFAULT_CONTEXT):
            return Origin.MODEL
        return self.origins.get(value, Origin.DEFAULT)


def said(spec: ModelSpec) -> list[str]:
    """Which of VALUES it sets."""
    return [value for value in VALUES if getattr(spec, value) not in (None, "", ())]
