"""Models: what owners define, and what callers are shown."""

from collections.abc import Sequence
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import catalog_service_pb2, model_pb2
from llorch.engines import ENGINES, SOURCES, EngineName
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.identifiers import check_id
from llorch.model_reference import parse_reference, shown
from llorch.options.checking import check_value
from llorch.options.model import MODEL
from llorch.redaction import redacted
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import CACHE_TYPES, SPLIT_MODES
from llorch.rpc.mirror import Mirror
from orchestratord.convert.option_checks import check_options
from orchestratord.core.facts.model import VALUES, Model, ModelSpec, ModelState, Origin
from orchestratord.core.facts.work import Work, works_of
from orchestratord.views.models import AvailabilityView, ModelView

_STATES = EnumTable(ModelState, model_pb2.ModelState)
_ORIGINS = EnumTable(Origin, model_pb2.ValueOrigin)
_SPECS = Mirror(
    ModelSpec, model_pb2.ModelSpec, enums=[CACHE_TYPES, SPLIT_MODES], unused={"idle_unload_s", "idle_unload_ms"}
)
_FIELD_NAMES = {"idle_unload_s": "idle_unload_ms"}
"""Values whose field in the contract is called otherwise."""
_ADDED_BY_CALL = "added by an operator"


def to_spec(spec: model_pb2.ModelSpec) -> ModelSpec:
    """Check what an owner sent, and make the spec that the catalog keeps."""
    check_id(spec.name, "name")
    for alias in spec.aliases:
        check_id(alias, "aliases")
    check_options("", MODEL, spec)
    check_shares(spec.split_shares)
    if spec.source:  # without one, another description of the model may have it
        check_source(spec.source, spec.engine)
    _SPECS.refuse_unknown(spec, "")
    idle_unload_s = spec.idle_unload_ms / 1000 if spec.HasField("idle_unload_ms") else None
    return replace(_SPECS.from_proto(spec), idle_unload_s=idle_unload_s)


def check_source(source: str, engine: str = "") -> None:
    """Raises unless it is a reference that the engine takes, or any engine where none is named. The hosts know whether
    it leads to a model.
    """
    if not source:
        raise invalid_field("source", "must not be empty; for example file:/models/coder.gguf")
    kinds = ENGINES[EngineName(engine)].sources if engine else SOURCES
    if not source.startswith(kinds):
        whose = f"that engine {engine} takes" if engine else "that is known"
        raise InvalidArgument(
            Reason.UNSUPPORTED_SOURCE,
            f"source: '{shown(source)}' has no kind {whose}; begin it with one of: {', '.join(kinds)}",
        )
    parse_reference(source)


def to_state(state: "model_pb2.ModelState.ValueType") -> ModelState:
    return _STATES.from_proto(state, "state")


def to_proto(view: ModelView) -> model_pb2.Model:
    model = view.model
    create_time = Timestamp()
    create_time.FromMilliseconds(round(model.registered_ms))
    return model_pb2.Model(
        spec=_spec_to_proto(model),
        state=_STATES.to_proto(model.state),
        size_mib=model.size_mib,
        digest=model.digest,
        context=view.context or 0,
        workers_ready=view.workers_ready,
        create_time=create_time if model.registered_ms else None,
        origins={_FIELD_NAMES.get(value, value): _ORIGINS.to_proto(model.origin_of(value)) for value in VALUES},
        provenance=_ADDED_BY_CALL if model.origin is Origin.CALL else model.provenance,
        names=view.names,
        problems=view.problems,
        generates=None if model.facts is None else Work.GENERATE in works_of(model.facts),
    )


def availability_to_proto(view: AvailabilityView) -> catalog_service_pb2.ModelAvailability:
    return catalog_service_pb2.ModelAvailability(
        model=view.model, staged_node_ids=view.staged_node_ids, ready_worker_ids=view.ready_worker_ids
    )


def verification_to_proto(node_id: str, digest: str, failure: str) -> catalog_service_pb2.NodeVerification:
    return catalog_service_pb2.NodeVerification(node_id=node_id, ok=not failure, digest=digest, message=failure)


def _spec_to_proto(model: Model) -> model_pb2.ModelSpec:
    """The description, with defaults for what it leaves out."""
    spec = replace(
        model.spec, context=model.known_context, slots=model.slots, cache_type=model.cache_type, split=model.split
    )
    message = _SPECS.to_proto(spec)
    message.source = redacted(spec.source)
    if spec.idle_unload_s is not None:
        message.idle_unload_ms = round(spec.idle_unload_s * 1000)
    return message


def check_shares(shares: Sequence[float]) -> None:
    """One per device, of any sum above 0."""
    check_value("split_shares", MODEL["split_shares"], shares)
    if shares and sum(shares) <= 0:
        raise invalid_field("split_shares", "has to have numbers that are not all 0, such as 24, 12")
