"""The programs that use llama-orch, each with a key of its own, its own names for models, and its share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llorch.errors import NotFound, Reason
from llorch.options.app import DEFAULT_WEIGHT
from llorch.options.task import DEFAULT_PRIORITY
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.quotas import Usage

FINGERPRINT_DIGITS = 6


@dataclass(frozen=True, slots=True)
class App:
    """`key_hash` is the SHA-256 of its key in hexadecimal; empty until a call makes a key. 0 = no limit."""

    name: str
    key_hash: str = field(default="", repr=False)
    models: Mapping[str, str] = field(default_factory=dict)
    priority: str = DEFAULT_PRIORITY
    weight: float = DEFAULT_WEIGHT
    max_concurrent_tasks: int = 0
    max_tokens_per_minute: int = 0
    origin: Origin = Origin.CALL
    created_at_ms: int = 0

    @property
    def record_key(self) -> str:
        return self.name

    @property
    def key_fingerprint(self) -> str:
        return self.key_hash[:FINGERPRINT_DIGITS]


@dataclass(slots=True)
class Apps:
    """By name and by the hash of the key, with what each of them uses at the moment."""

    _apps: dict[str, App] = field(default_factory=dict)
    _by_key: dict[str, str] = field(default_factory=dict)
    _usage: dict[str, Usage] = field(default_factory=dict)

    def get(self, name: str) -> App:
        if app := self._apps.get(name):
            return app
        known = ", ".join(sorted(self._apps)) or "none"
        raise NotFound(Reason.APP_NOT_FOUND, f"no app is called '{name[:128]}'; the apps are: {known}")

    def find(self, name: str) -> App | None:
        return self._apps.get(name)

    def has(self, name: str) -> bool:
        """Callers without an app are as one, without a name."""
        return not name or name in self._apps

    def by_key_hash(self, key_hash: str) -> App | None:
        return self._apps.get(self._by_key.get(key_hash, ""))

    def all(self) -> list[App]:
        return [self._apps[name] for name in sorted(self._apps)]

    def put(self, app: App) -> None:
        self._forget_key(app.name)
        self._apps[app.name] = app
        if app.key_hash:
            self._by_key[app.key_hash] = app.name

    def remove(self, name: str) -> None:
        self._forget_key(name)
        del self._apps[name]

    def model_name(self, app: str, name: str) -> str:
        """What the app means by this name of a model."""
        known = self._apps.get(app)
        return known.models.get(name, name) if known else name

    def priority_of(self, app: str, asked: str) -> str:
        """The class of a task: the one that is asked for, else the app's own."""
        known = self._apps.get(app)
        return asked or (known.priority if known else DEFAULT_PRIORITY)

    def usage(self, app: str) -> Usage:
        return self._usage.setdefault(app, Usage())

    def forget_usage(self, app: str) -> None:
        """Of an app that has nothing running."""
        self._usage.pop(app, None)

    def _forget_key(self, name: str) -> None:
        if old := self._apps.get(name):
            self._by_key.pop(old.key_hash, None)
