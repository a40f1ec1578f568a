"""Models of the catalog as `/v1/models` shows them."""

from gatewayd.openai.fields import Json
from llama_orch.v2 import model_pb2

_OWNER = "llama-orch"


def model_json(model: model_pb2.Model) -> Json:
    return {
        "id": model.spec.name,
        "object": "model",
        "created": model.create_time.seconds,
        "owned_by": _OWNER,
    }


def takes_tasks(model: model_pb2.Model) -> bool:
    return model.state != model_pb2.MODEL_STATE_RETIRED
