"""CatalogService: the models that tasks may name."""

from typing import Any

from llama_orch.v2 import catalog_service_pb2 as pb2
from llama_orch.v2 import model_pb2
from llorch.clock import Clock
from llorch.errors import invalid_field
from llorch.rpc.call_context import current_call
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.convert import models
from orchestratord.core import events
from orchestratord.core.facts.fleet import Node
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from orchestratord.core.placement.pulls import not_pulled
from orchestratord.core.placement.rule_problems import RuleProblems, left_behind
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.runtime.source_check import check_on_nodes
from orchestratord.runtime.verification import compared, found_by_most, read_on_nodes
from orchestratord.views import models as view_models


class CatalogService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["CatalogService"]):
    """A change is answered once it is kept."""

    def __init__(self, owner: BrainOwner, effects: EffectRunner, changes: KeptChanges, clock: Clock) -> None:
        self._owner = owner
        self._effects = effects
        self._changes = changes
        self._clock = clock

    async def RegisterModel(self, request: pb2.RegisterModelRequest, context: Any) -> pb2.RegisterModelResponse:
        spec = models.to_spec(request.model)
        unknown = await self._look_at_file(spec)
        now_ms = round(self._clock.wall().timestamp() * 1000)
        state = self._owner.state
        before = state.catalog.find(spec.name)
        loaded = view_models.workers_serving(state, spec.name)
        model = await self._changes.ask(events.ModelRegistered(spec, Origin.CALL, "RegisterModel call", now_ms))
        leaving = len(loaded) - len(view_models.workers_serving(state, spec.name) & loaded)
        warnings = [
            *([unknown] if unknown else []),
            *view_models.surprises(before, model, leaving),
            *RuleProblems(state).of_model(model.name),
        ]
        return pb2.RegisterModelResponse(model=self._shown(model), warnings=warnings)

    async def GetModel(self, request: pb2.GetModelRequest, context: Any) -> pb2.GetModelResponse:
        """By any name that the caller may ask for."""
        name = self._owner.state.apps.model_name(current_call().app, request.model)
        return pb2.GetModelResponse(model=self._shown(self._find(name)))

    async def ListModels(self, request: pb2.ListModelsRequest, context: Any) -> pb2.ListModelsResponse:
        page, following = self._page(request.page_size, request.page_token)
        namings = self._namings()
        shown = [self._shown(model, namings) for model in page]
        return pb2.ListModelsResponse(models=shown, next_page_token=following)

    async def VerifyModel(self, request: pb2.VerifyModelRequest, context: Any) -> pb2.VerifyModelResponse:
        model = self._find(request.model)
        source = model.spec.source
        nodes = {node.node_id: self._effects.node(node.node_id) for node in self._ready_nodes_with(source)}
        if not nodes:
            raise not_pulled(self._owner.state.fleet, model)
        found = await read_on_nodes(nodes, source)
        known = model.digest or found_by_most(found)
        if known:
            known = self._owner.ask(events.ModelVerified(source, known))
        return pb2.VerifyModelResponse(
            nodes=[models.verification_to_proto(one.node_id, one.digest, one.failure) for one in compared(found, known)]
        )

    async def SetModelState(self, request: pb2.SetModelStateRequest, context: Any) -> pb2.SetModelStateResponse:
        name = self._find(request.model).name
        model = await self._changes.ask(events.ModelStateSet(name, models.to_state(request.state)))
        return pb2.SetModelStateResponse(model=self._shown(model))

    async def DeleteModel(self, request: pb2.DeleteModelRequest, context: Any) -> pb2.DeleteModelResponse:
        name = self._find(request.model).name
        await self._changes.ask(events.ModelDeleted(name))
        state = self._owner.state
        stays = view_models.still_there(state, name)
        return pb2.DeleteModelResponse(warnings=[*stays, *left_behind(state, model=name)])

    async def GetAvailability(self, request: pb2.GetAvailabilityRequest, context: Any) -> pb2.GetAvailabilityResponse:
        page, following = self._page(request.page_size, request.page_token)
        views = (view_models.availability(self._owner.state, model) for model in page)
        return pb2.GetAvailabilityResponse(
            models=[models.availability_to_proto(view) for view in views], next_page_token=following
        )

    async def _look_at_file(self, spec: ModelSpec) -> str:
        """What is not known of the file of a model that is to be added, or that is to have another one."""
        state = self._owner.state
        before = state.catalog.find(spec.name)
        if not spec.source or (before is not None and before.spec.source == spec.source):
            return ""
        nodes = {node.node_id: self._effects.node(node.node_id) for node in state.fleet.ready_nodes()}
        return await check_on_nodes(spec.source, nodes, state.fleet)

    def _find(self, name: str) -> Model:
        if not name:
            raise invalid_field("model", "must not be empty; `llorch models` lists the models")
        return self._owner.state.catalog.get(name)

    def _page(self, page_size: int, page_token: str) -> tuple[list[Model], str]:
        return page_of(self._owner.state.catalog.all(), lambda model: model.name, page_size, page_token)

    def _ready_nodes_with(self, source: str) -> list[Node]:
        return [node for node in self._owner.state.fleet.ready_nodes() if source in node.staged]

    def _namings(self) -> view_models.Namings:
        return view_models.Namings(self._owner.state, current_call().app)

    def _shown(self, model: Model, namings: view_models.Namings | None = None) -> model_pb2.Model:
        names = (namings or self._namings()).of(model)
        return models.to_proto(view_models.view(self._owner.state, model, names))
