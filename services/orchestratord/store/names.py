"""What everything is called on the disk. These names are the store's own and stay when Python's change.

A new field of a dataclass that is kept: name it in its `Shape`, and add to `CHANGES` what older records have there
(`added`), with the next format: one above the newest database that the tests keep. A new kind of record: give it a
`Shape`, and say in `CHANGES` that it `began`. Then `python -m support.stored_database` (in `tests/`) makes the
database of that format that the tests keep.

Enums are stored by their values; a test holds these.
"""

from llorch.gguf.facts import ModelFacts
from llorch.gguf.layers import Layer
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.calibration import Calibration
from orchestratord.core.facts.decision import Asked, Candidate, DecisionRecord, Evicted, Term
from orchestratord.core.facts.drains import Drain, Ran
from orchestratord.core.facts.known_node import KnownDevice, KnownNode, KnownPool
from orchestratord.core.facts.model import ModelRecord, ModelSpec, SourceFacts
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.rules import Overrides, Wishes
from orchestratord.core.facts.sessions import Budget, Session
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import ChoiceEnd, RunResult, Stopped, TaskEnd, TaskError, TaskRequest
from orchestratord.core.learnt.estimates import Estimate
from orchestratord.core.learnt.rates import Rate
from orchestratord.store.shape import Change, Shape, Stored, added, began

SHAPES = (
    Shape(ModelRecord, ("name", "state", "spec", "provenance", "at_ms")),
    Shape(
        ModelSpec,
        (
            "name",
            "source",
            "aliases",
            "context",
            "slots",
            "cache_type",
            "split",
            "split_shares",
            "idle_unload_s",
            "vram_claim_mib",
            "engine",
        ),
    ),
    Shape(SourceFacts, ("source", "size_mib", "facts", "digest")),
    Shape(
        ModelFacts,
        (
            "architecture",
            "context_trained",
            "layers",
            "window",
            "vocabulary_size",
            "activation_width",
            "weight_bytes",
            "embedding_bytes",
            "output_bytes",
            "tied_output",
            "pooling",
            "bidirectional",
        ),
    ),
    Shape(Layer, ("heads", "kv_heads", "key_width", "value_width", "windowed", "state_bytes", "weight_bytes")),
    Shape(
        App,
        (
            "name",
            "key_hash",
            "models",
            "priority",
            "weight",
            "max_concurrent_tasks",
            "max_tokens_per_minute",
            "origin",
            "created_at_ms",
        ),
    ),
    Shape(
        Session,
        ("app", "session_id", "model", "budget", "turns", "tokens", "busy_ms", "worker_id", "warm_tokens"),
    ),
    Shape(Budget, ("turns", "tokens", "busy_ms")),
    Shape(Calibration, ("source", "context", "slots", "cache_type", "devices", "shares", "mib", "engine", "counts")),
    Shape(Rate, ("quantity", "model", "where", "size", "estimate")),
    Shape(Estimate, ("mean", "spread", "count")),
    Shape(ReleasedDevice, ("node_id", "device_id", "until_ms")),
    Shape(
        Assignment,
        (
            "assignment_id",
            "model",
            "app",
            "targets",
            "mode",
            "places",
            "keep_loaded",
            "replicas_min",
            "replicas_max",
            "fallback",
            "origin",
            "created_at_ms",
        ),
    ),
    Shape(KnownNode, ("node_id", "host_id", "address", "version", "labels", "devices", "pools", "offered", "former")),
    Shape(
        KnownDevice,
        ("device_id", "kind", "index", "name", "total_mib", "reserve_mib", "compute_capability", "engines"),
    ),
    Shape(KnownPool, ("pool_id", "device_ids")),
    Shape(Drain, ("pool_id", "node_id", "device_ids", "policy", "after", "deadline_ms", "ran", "is_drained")),
    Shape(Ran, ("model", "device_ids")),
    Shape(Place, ("node_id", "device_ids", "pool_id")),
    Shape(
        DecisionRecord,
        (
            "decision_id",
            "model",
            "outcome",
            "at_ms",
            "task_id",
            "candidates",
            "removed",
            "considered",
            "pinned",
            "fallback_used",
            "why",
            "asked",
        ),
    ),
    Shape(Asked, ("app", "priority", "came_at_ms", "prompt_tokens", "output_tokens")),
    Shape(
        Candidate,
        (
            "node_id",
            "device_ids",
            "where",
            "worker_id",
            "claims_mib",
            "tensor_split",
            "evicted",
            "terms",
            "filtered_by",
            "filter_detail",
        ),
    ),
    Shape(Evicted, ("worker_id", "model", "idle_s", "mib")),
    Shape(Term, ("name", "ms", "is_guess")),
    Shape(
        TaskRequest,
        (
            "task_id",
            "model",
            "payload",
            "content_digest",
            "seed",
            "priority",
            "app",
            "session_id",
            "request_id",
            "correlation_id",
            "deadline_s",
            "durable",
            "prompt_tokens",
            "max_tokens",
            "choices",
            "session_budget",
            "wishes",
            "overrides",
            "work",
            "deterministic",
            "fills_limit",
        ),
    ),
    Shape(Promise, ("fingerprint", "cards", "context")),
    Shape(Fingerprint, ("digest", "words")),
    Shape(Wishes, ("pin", "prefer", "avoid", "device_mask", "fallback")),
    Shape(Overrides, ("pin", "prefer", "avoid", "device_mask", "fallback", "above_rules")),
    Shape(TaskEnd, ("result", "queue_ms", "first_token_ms"), tag="answer"),
    Shape(TaskError, ("reason", "message", "retry_after_ms", "field"), tag="error"),
    Shape(
        Stopped,
        ("finish_reason", "queue_ms", "first_token_ms", "tokens_in", "cached_tokens", "decode_ms"),
        tag="stopped",
    ),
    Shape(
        RunResult,
        ("choices", "tokens_in", "tokens_out", "cached_tokens", "decode_ms", "receipt", "prefill_ms"),
    ),
    Shape(ChoiceEnd, ("choice", "finish_reason", "tokens_out", "stop_string")),
)

BY_TYPE = {shape.type: shape for shape in SHAPES}


def _forget_sums_of_layers(stored: Stored) -> None:
    """Facts once were sums over the layers, from which the layers can't be found again; a node reads the file anew."""
    if "weights_mib" in (stored["facts"] or {}):
        stored.update(facts=None, size_mib=None)


GONE_REASONS = {"ATTEMPT_NOT_FOUND": "INTERNAL"}
"""Reasons that the contract has reserved, and what is read in their place."""


def _name_reasons_that_are_gone(stored: Stored) -> None:
    stored["reason"] = GONE_REASONS.get(stored["reason"], stored["reason"])


def _forget_what_the_reason_says(stored: Stored) -> None:
    """Whether the same request may help followed from the code that ended it; `Reason.is_retryable` says so now."""
    stored.pop("retryable", None)


_NO_OVERRIDES: Stored = {
    "pin": [], "prefer": [], "avoid": [], "device_mask": [], "fallback": None, "above_rules": False,
}  # fmt: skip

CHANGES: tuple[Change, ...] = (
    Change(1, SourceFacts, _forget_sums_of_layers),
    added(1, Term, is_guess=False),
    added(1, RunResult, prefill_ms=0),
    added(1, TaskRequest, prompt_tokens=0, max_tokens=None, choices=1, session_budget=None),
    added(1, TaskRequest, wishes=None, overrides=_NO_OVERRIDES),
    added(2, ModelSpec, engine=""),
    added(2, TaskError, field=""),
    added(2, Calibration, engine=""),
    Change(2, TaskError, _name_reasons_that_are_gone),
    added(3, ModelFacts, pooling=None, bidirectional=False),
    added(3, Calibration, counts=""),
    added(3, TaskRequest, work="generate"),
    # It stood in the work alone, where the restart looks for it.
    added(3, TaskRequest, deterministic=False),
    began(4, KnownNode),
    began(4, Drain),
    added(4, DecisionRecord, why=""),
    Change(5, TaskError, _forget_what_the_reason_says),
    added(5, Stopped, tokens_in=0, cached_tokens=0, decode_ms=0),
    added(6, TaskRequest, fills_limit=False),
    added(7, DecisionRecord, asked=None),
)
"""By format, the earliest first. An entry that was released stays as it is."""

FORMAT = CHANGES[-1].format
"""What this release reads and writes. Format 0 had no number, and records of it may lack any of what came with 1."""


def shape_of(kind: type) -> Shape:
    """Raises TypeError if it has none, or if it is not that of the dataclass any more."""
    shape = BY_TYPE.get(kind)
    if shape is None:
        raise TypeError(f"{kind.__name__} has no names on the disk: give it a Shape in store/names.py")
    shape.check()
    return shape


def changes_since(kind: type, present: int) -> tuple[Change, ...]:
    """What is to be done, in order, to what was written in format `present`."""
    return tuple(change for change in CHANGES if change.type is kind and change.format > present)
