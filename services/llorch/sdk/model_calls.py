"""Calls about the models that tasks may name."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Unpack

from llama_orch.v2 import catalog_service_pb2, fleet_service_pb2, model_pb2
from llorch.options.model import ModelSettings
from llorch.sdk.caller import SILENCE_S, Caller
from llorch.sdk.fill import filled
from llorch.sdk.task_options import Texts

_VERIFY_S = 3600.0  # as long as the largest models take from the slowest disks


class ModelCalls(Caller):
    async def models(self) -> list[model_pb2.Model]:
        """All models, by name."""
        request = catalog_service_pb2.ListModelsRequest()
        return await self._all_pages(self._stubs.catalog.ListModels, request, lambda page: page.models)

    async def model(self, name: str) -> model_pb2.Model:
        """One model, by name or alias."""
        request = filled(catalog_service_pb2.GetModelRequest, model=name)
        answer: catalog_service_pb2.GetModelResponse = await self._ask(self._stubs.catalog.GetModel, request)
        return answer.model

    async def availability(self) -> list[catalog_service_pb2.ModelAvailability]:
        """Of each model, by name: the nodes that have its file, and the workers that have it loaded."""
        request = catalog_service_pb2.GetAvailabilityRequest()
        return await self._all_pages(self._stubs.catalog.GetAvailability, request, lambda page: page.models)

    async def register_model(self, name: str, source: str, **settings: Unpack[ModelSettings]) -> model_pb2.Model:
        """Adds a model; `source` is a reference such as `file:<absolute path>` or `hf:<org>/<repo>:<quantization>`."""
        return (await self.add_model(name, source, **settings))[0]

    async def add_model(
        self, name: str, source: str, **settings: Unpack[ModelSettings]
    ) -> tuple[model_pb2.Model, list[str]]:
        """As `register_model`. Also says, in sentences, which rules about it are not met, and what could not be found
        out about its file.
        """
        spec = filled(model_pb2.ModelSpec, name=name, source=source, **settings)
        request = catalog_service_pb2.RegisterModelRequest(model=spec)
        answer: catalog_service_pb2.RegisterModelResponse = await self._call(self._stubs.catalog.RegisterModel, request)
        return answer.model, list(answer.warnings)

    async def pull_model(
        self, source: str, node_ids: Texts = ()
    ) -> AsyncGenerator[fleet_service_pb2.PullModelResponse, None]:
        """Brings a model's file onto nodes, and says how it goes; the last message of each node is `complete`.

        `source` is a model's name or a reference such as `hf:org/repo:Q4_K_M`. Without `node_ids` the orchestrator
        chooses. Leaving the iteration leaves the download alone for a while; asking again goes on with it.
        """
        request = filled(fleet_service_pb2.PullModelRequest, source=source, node_ids=node_ids)
        async with aclosing(self._read(self._stubs.fleet.PullModel, request, idle_timeout_s=SILENCE_S)) as answers:
            async for answer in answers:
                yield answer

    async def delete_model(self, name: str) -> list[str]:
        """Takes a model that was added out of the catalog; its file stays. Says what still names it, in sentences."""
        request = filled(catalog_service_pb2.DeleteModelRequest, model=name)
        answer: catalog_service_pb2.DeleteModelResponse = await self._call(self._stubs.catalog.DeleteModel, request)
        return list(answer.warnings)

    async def retire_model(self, name: str) -> model_pb2.Model:
        """Gives a model no new tasks; what runs may finish."""
        return await self._set_model_state(name, model_pb2.MODEL_STATE_RETIRED)

    async def activate_model(self, name: str) -> model_pb2.Model:
        """Gives a retired model tasks again."""
        return await self._set_model_state(name, model_pb2.MODEL_STATE_ACTIVE)

    async def verify_model(self, name: str) -> list[catalog_service_pb2.NodeVerification]:
        """Reads a model's files again on every node that holds them. Large files take minutes."""
        request = filled(catalog_service_pb2.VerifyModelRequest, model=name)
        answer: catalog_service_pb2.VerifyModelResponse = await self._call(
            self._stubs.catalog.VerifyModel, request, timeout_s=_VERIFY_S
        )
        return list(answer.nodes)

    async def _set_model_state(self, name: str, state: "model_pb2.ModelState.ValueType") -> model_pb2.Model:
        request = filled(catalog_service_pb2.SetModelStateRequest, model=name, state=state)
        answer: catalog_service_pb2.SetModelStateResponse = await self._call(self._stubs.catalog.SetModelState, request)
        return answer.model
