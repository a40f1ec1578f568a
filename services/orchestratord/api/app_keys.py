"""Keys of apps: a caller that shows one acts as that app, and may use what programs use, but not manage anything."""

from collections.abc import Callable, Mapping

from llama_orch.v2 import (
    catalog_service_pb2,
    delivery_service_pb2,
    meta_service_pb2,
    placement_service_pb2,
    session_service_pb2,
    task_service_pb2,
)
from llorch.auth import LOCALHOST, BearerAuth, Identity, bearer_token, is_app_key, key_hash
from llorch.errors import Reason, Unauthenticated
from orchestratord.core.facts.apps import App

FindApp = Callable[[str], App | None]
"""By the hash of its key."""

_TASKS = task_service_pb2.DESCRIPTOR.services_by_name["TaskService"]
_DELIVERIES = delivery_service_pb2.DESCRIPTOR.services_by_name["DeliveryService"]
_SESSIONS = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"]
_CATALOG = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"]
_PLACEMENT = placement_service_pb2.DESCRIPTOR.services_by_name["PlacementService"]
_META = meta_service_pb2.DESCRIPTOR.services_by_name["MetaService"]

METHODS_OF_APPS = frozenset(
    f"/{service.full_name}/{method}"
    for service, methods in (
        (_TASKS, [method.name for method in _TASKS.methods]),
        (_DELIVERIES, ["AttachReader"]),
        (_SESSIONS, [method.name for method in _SESSIONS.methods]),
        (_CATALOG, ["GetModel", "ListModels", "GetAvailability"]),
        (_PLACEMENT, ["ExplainPlacement"]),
        (_META, ["GetCapabilities", "GetIdentity"]),
    )
    for method in methods
)


class AppAuth:
    """Authenticates apps by their keys, and leaves every other caller to `others`.

    A caller with a key that no app has (any more) is refused even on a trusted machine: it means to be an app.
    """

    def __init__(self, find_app: FindApp, others: BearerAuth) -> None:
        self._find_app = find_app
        self._others = others

    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        shown = bearer_token(metadata) or ""
        is_key = is_app_key(shown)
        if is_key and (app := self._find_app(key_hash(shown))):
            name = f"app:{app.name}"
            return Identity(name, app=app.name, methods=METHODS_OF_APPS, otherwise=self._others.what_to_show)
        identity = self._others.authenticate(metadata, peer)
        if is_key and identity == LOCALHOST:
            raise Unauthenticated(
                Reason.TOKEN_INVALID, "no app has this key, or its app was deleted; `llorch apps` lists the apps"
            )
        return identity
