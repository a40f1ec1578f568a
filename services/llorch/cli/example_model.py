"""Which model `llorch up` names in its closing example: one that makes text, and that can be loaded here."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llorch.errors import LlorchError
from llorch.model_reference import LocalReference, parse_reference

if TYPE_CHECKING:
    from llama_orch.v2 import model_pb2
    from llorch.sdk.async_client import AsyncClient

_LOOKS_AT_MOST = 8
_WITHIN_S = 5.0
"""A start is not to wait for slow disks any longer."""


@dataclass
class ExampleModel:
    """`name` is empty where there is none; `problems` say, by name, why models that were looked at can't be loaded."""

    name: str = ""
    problems: dict[str, str] = field(default_factory=dict)


async def find_example(client: "AsyncClient", models: "Sequence[model_pb2.Model]") -> ExampleModel:
    """Files that lie on this machine are looked at; what would have to be downloaded first is no example."""
    found = ExampleModel()
    ordered = sorted(models, key=lambda model: not model.provenance.startswith("package"))
    try:
        async with asyncio.timeout(_WITHIN_S):
            for model in ordered[:_LOOKS_AT_MOST]:
                if await _is_one(client, model, found):
                    found.name = model.spec.name
                    break
    except TimeoutError:
        pass  # without an example, then
    return found


async def _is_one(client: "AsyncClient", model: "model_pb2.Model", found: ExampleModel) -> bool:
    from llama_orch.v2 import model_pb2

    name = model.spec.name
    if model.state != model_pb2.MODEL_STATE_ACTIVE:
        return False
    try:
        if not model.HasField("generates") and _lies_here(model.spec.source):
            async with aclosing(client.pull_model(name)) as answers:
                async for _ in answers:
                    pass
            model = await client.model(name)
        return model.generates and (await client.explain(name)).HasField("chosen")
    except LlorchError as error:
        found.problems[name] = error.message
        return False


def _lies_here(source: str) -> bool:
    try:
        return isinstance(parse_reference(source), LocalReference)
    except LlorchError:
        return False  # a secret in it is redacted: it has to be downloaded
