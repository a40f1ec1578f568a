"""AppService: the programs that use llama-orch, and their keys."""

from typing import Any

from llama_orch.v2 import app_pb2
from llama_orch.v2 import app_service_pb2 as pb2
from llorch.auth import key_hash, new_app_key
from llorch.clock import Clock
from llorch.identifiers import check_id
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.convert import apps
from orchestratord.core import events
from orchestratord.core.facts.apps import App
from orchestratord.core.placement.rule_problems import left_behind
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.views.apps import problems


class AppService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["AppService"]):
    """A key leaves this class once, in the answer that it was made for; every other caller sees its hash."""

    def __init__(self, owner: BrainOwner, changes: KeptChanges, clock: Clock) -> None:
        self._owner = owner
        self._changes = changes
        self._clock = clock

    async def CreateApp(self, request: pb2.CreateAppRequest, context: Any) -> pb2.CreateAppResponse:
        key = new_app_key()
        app = apps.to_app(request.app, key_hash(key), at_ms=round(self._clock.wall().timestamp() * 1000))
        created = await self._changes.ask(events.AppCreated(app))
        return pb2.CreateAppResponse(app=self._shown(created), key=key)

    async def ListApps(self, request: pb2.ListAppsRequest, context: Any) -> pb2.ListAppsResponse:
        known = self._owner.state.apps.all()
        page, following = page_of(known, lambda app: app.name, request.page_size, request.page_token)
        return pb2.ListAppsResponse(apps=[self._shown(app) for app in page], next_page_token=following)

    async def UpdateApp(self, request: pb2.UpdateAppRequest, context: Any) -> pb2.UpdateAppResponse:
        updated = await self._changes.ask(events.AppUpdated(apps.to_app(request.app)))
        return pb2.UpdateAppResponse(app=self._shown(updated))

    async def DeleteApp(self, request: pb2.DeleteAppRequest, context: Any) -> pb2.DeleteAppResponse:
        name = check_id(request.app, "app")
        await self._changes.ask(events.AppDeleted(name))
        return pb2.DeleteAppResponse(warnings=left_behind(self._owner.state, app=name))

    def _shown(self, app: App) -> app_pb2.App:
        return apps.to_proto(app, problems(self._owner.state, app))
