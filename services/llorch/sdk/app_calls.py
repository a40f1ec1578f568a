"""Calls about apps: the programs that use the system, each with a key of its own."""

from collections.abc import Mapping
from typing import TypedDict, Unpack

from llama_orch.v2 import app_pb2, app_service_pb2
from llorch.errors import NotFound, Reason
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled


class AppSettings(TypedDict, total=False):
    """Other fields of the contract's `App`. `models` are the app's own names for models: its name to the catalog's."""

    models: Mapping[str, str] | None
    priority: str | None
    weight: float | None
    max_concurrent_tasks: int | None
    max_tokens_per_minute: int | None


class AppCalls(Caller):
    async def create_app(self, name: str, **settings: Unpack[AppSettings]) -> tuple[app_pb2.App, str]:
        """The app and its key, which the orchestrator tells this once."""
        request = app_service_pb2.CreateAppRequest(app=filled(app_pb2.App, app=name, **settings))
        answer: app_service_pb2.CreateAppResponse = await self._call(self._stubs.apps.CreateApp, request)
        return answer.app, answer.key

    async def apps(self) -> list[app_pb2.App]:
        """All apps, by name."""
        request = app_service_pb2.ListAppsRequest()
        return await self._all_pages(self._stubs.apps.ListApps, request, lambda page: page.apps)

    async def app(self, name: str) -> app_pb2.App:
        """One app, by name."""
        apps = await self.apps()
        for found in apps:
            if found.app == name:
                return found
        known = ", ".join(found.app for found in apps) or "none"
        raise NotFound(Reason.APP_NOT_FOUND, f"no app is called '{name}'; the apps are: {known}")

    async def update_app(self, name: str, **settings: Unpack[AppSettings]) -> app_pb2.App:
        """Changes what is given, such as `weight=2`; the rest stays, and so does the key."""
        request = app_service_pb2.UpdateAppRequest(app=_with(await self.app(name), settings))
        answer: app_service_pb2.UpdateAppResponse = await self._call(self._stubs.apps.UpdateApp, request)
        return answer.app

    async def delete_app(self, name: str) -> list[str]:
        """Its key is refused from then on. Says which rules still name it, in sentences."""
        request = filled(app_service_pb2.DeleteAppRequest, app=name)
        answer: app_service_pb2.DeleteAppResponse = await self._call(self._stubs.apps.DeleteApp, request)
        return list(answer.warnings)


def _with(app: app_pb2.App, settings: AppSettings) -> app_pb2.App:
    """The app with other settings. A map that is given stands in the stead of the one that was there."""
    given = filled(app_pb2.App, **settings)
    for field in settings:
        app.ClearField(field)  # type: ignore[arg-type]  # fields by name
    app.MergeFrom(given)
    return app
