"""What an engine declares about itself. A capability that is not declared does not exist."""

from dataclasses import dataclass, field
from enum import StrEnum

from worker_orcd.step_times import StepTimes


class ResumeSupport(StrEnum):
    NONE = "NONE"
    TEXT_PREFIX = "TEXT_PREFIX"
    EXACT_IDS = "EXACT_IDS"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`sampling_options` are names of fields of the contract's `Sampling`."""

    resume: ResumeSupport = ResumeSupport.NONE
    generation: bool = False
    deterministic: bool = False
    logprobs: bool = False
    grammar: bool = False
    json_schema: bool = False
    tools: bool = False
    chat: bool = False
    embeddings: bool = False
    rerank: bool = False
    multiple_choices: bool = False
    sampling_options: frozenset[str] = frozenset()

    def declared(self) -> frozenset[str]:
        """The names of everything that may be asked for, as `Demand.capability` uses them."""
        flags = (
            "generation",
            "deterministic",
            "logprobs",
            "grammar",
            "json_schema",
            "tools",
            "chat",
            "embeddings",
            "rerank",
            "multiple_choices",
        )
        return self.sampling_options | {name for name in flags if getattr(self, name)}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that the bytes of an answer depend on apart from the request."""

    engine_version: str = ""
    build: str = ""
    device_kind: str = ""
    device: str = ""
    model_digest: str = ""
    sampler_profile: int = 0
    prefill_chunk: int = 0
    threads: int = 0
    flash_attention: bool = False
    cache_type_k: str = ""
    cache_type_v: str = ""
    context_per_slot: int = 0


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine with its model loaded. Contexts are in tokens; `memory_mib` has one figure per device.

    `slots` run at once; `max_admitted` may be here at once, running or waiting for a slot. `metrics_address` is where
    the worker serves its metrics, empty if it does not; an engine leaves it so.
    """

    engine: str
    engine_version: str
    model: str
    context_per_slot: int
    slots: int
    max_admitted: int
    context_trained: int = 0
    vocabulary_size: int = 0
    capabilities: Capabilities = field(default_factory=Capabilities)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    simulated: bool = False
    cpu: bool = False
    load_ms: int = 0
    memory_mib: tuple[int, ...] = ()
    metrics_address: str = ""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the start. `kv_used_tokens` is what the slots hold now, those included in which nothing runs;
    `warm_prefixes` are conversations whose next turn need not be evaluated from its beginning. `step_times` goes
    on counting.
    """

    slots_busy: int = 0
    steps: int = 0
    tokens_generated: int = 0
    tokens_prefilled: int = 0
    tokens_cached: int = 0
    kv_used_tokens: int = 0
    warm_prefixes: int = 0
    host_cache_bytes: int = 0
    step_times: StepTimes | None = None
