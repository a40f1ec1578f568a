"""Models of the catalog as `/v1/models` shows them: once for each name that may be asked for."""

from collections.abc import Sequence

from gatewayd.openai.fields import Json
from llama_orch.v2 import model_pb2
from llorch.errors import NotFound, Reason

_OWNER = "llama-orch"


def models_json(model: model_pb2.Model) -> list[Json]:
    """Nothing of one that takes no tasks."""
    return [] if _is_retired(model) else [_shown(model, name) for name in _names(model)]


def model_json(model: model_pb2.Model, name: str) -> Json:
    """Under the name that it was asked for. Raises NotFound for one that is not listed."""
    if _is_retired(model):
        raise NotFound(Reason.MODEL_RETIRED, f"model '{name}' is retired; use one that GET /v1/models lists")
    return _shown(model, name)


def _shown(model: model_pb2.Model, name: str) -> Json:
    return {"id": name, "object": "model", "created": model.create_time.seconds, "owned_by": _OWNER}


def _names(model: model_pb2.Model) -> Sequence[str]:
    return model.names or [model.spec.name, *model.spec.aliases]  # an earlier orchestrator tells none


def _is_retired(model: model_pb2.Model) -> bool:
    return model.state == model_pb2.MODEL_STATE_RETIRED
