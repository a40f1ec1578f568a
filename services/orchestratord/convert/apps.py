"""Apps: what callers define, and what they are shown."""

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import app_pb2
from llorch.errors import invalid_field
from llorch.identifiers import check_id
from llorch.options.app import APP, DEFAULT_WEIGHT
from llorch.options.task import DEFAULT_PRIORITY
from orchestratord.convert.option_checks import check_options
from orchestratord.core.facts.apps import App

MAX_NAMES = 256
MAX_NAME = 128


def to_app(app: app_pb2.App, key_hash: str = "", at_ms: int = 0) -> App:
    """Checks everything that can be checked without the state. Fields that only the orchestrator sets are not read."""
    check_id(app.app, "app")
    check_options("", APP, app)
    _check_names(app)
    return App(
        name=app.app,
        key_hash=key_hash,
        models=dict(app.models),
        priority=app.priority or DEFAULT_PRIORITY,
        weight=app.weight if app.HasField("weight") else DEFAULT_WEIGHT,
        max_concurrent_tasks=app.max_concurrent_tasks,
        max_tokens_per_minute=app.max_tokens_per_minute,
        created_at_ms=at_ms,
    )


def to_proto(app: App, problems: Iterable[str] = ()) -> app_pb2.App:
    shown = app_pb2.App(
        app=app.name,
        models=dict(app.models),
        priority=app.priority,
        weight=app.weight,
        max_concurrent_tasks=app.max_concurrent_tasks,
        max_tokens_per_minute=app.max_tokens_per_minute,
        key_fingerprint=app.key_fingerprint,
        problems=problems,
    )
    if app.created_at_ms:
        created = Timestamp()
        created.FromDatetime(datetime.fromtimestamp(app.created_at_ms / 1000, UTC))
        shown.create_time.CopyFrom(created)
    return shown


def _check_names(app: app_pb2.App) -> None:
    """Programs call models what they like: "openai/gpt-4o" is a good name here."""
    if len(app.models) > MAX_NAMES:
        raise invalid_field("models", f"has {len(app.models)} names; at most {MAX_NAMES} are taken")
    for name, model in app.models.items():
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise invalid_field("models", f"a name has 1 to {MAX_NAME} printable characters, unlike '{name[:40]}'")
        if not model:
            raise invalid_field(f"models[{name}]", "has to be the name of a model; `llorch models` lists them")
