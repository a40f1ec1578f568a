"""Requests that belong together: what they may use, and which worker has their conversation in its cache."""

from dataclasses import dataclass, field

from llorch.errors import NotFound, Reason, ResourceExhausted

_Key = tuple[str, str]

MOST_SESSIONS = 10_000
"""About 1.5 KiB each: ids and names are short, so that a bound on their number is one on their bytes."""


@dataclass(frozen=True, slots=True)
class Budget:
    """None = no limit. `busy_ms` is the time that the session's tasks run, together."""

    turns: int | None = None
    tokens: int | None = None
    busy_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """`warm_tokens` of it should be in the KV cache of `worker_id`, as its last run left it."""

    app: str
    session_id: str
    model: str = ""
    budget: Budget = Budget()
    turns: int = 0
    tokens: int = 0
    busy_ms: int = 0
    worker_id: str = ""
    warm_tokens: int = 0

    @property
    def record_key(self) -> str:
        """Neither names of apps nor ids contain a space."""
        return f"{self.app} {self.session_id}"

    def refuse_if_spent(self) -> None:
        for name, used, budget in (
            ("turns", self.turns, self.budget.turns),
            ("tokens", self.tokens, self.budget.tokens),
            ("ms of running", self.busy_ms, self.budget.busy_ms),
        ):
            if budget is not None and used >= budget:
                raise ResourceExhausted(
                    Reason.BUDGET_SPENT,
                    f"session '{self.session_id}' has used {used} of its {budget} {name}; begin a new session, or send "
                    "a larger session_budget",
                    metadata={"session_id": self.session_id, "budget": name},
                )


@dataclass(slots=True)
class Sessions:
    """Each ends some time after it was used last; while a task of it waits or runs, it does not end."""

    _sessions: dict[_Key, Session] = field(default_factory=dict)
    _by_app: dict[str, dict[str, None]] = field(default_factory=dict)
    """Those that were used last come last."""
    _expires: dict[_Key, float] = field(default_factory=dict)
    _tasks: dict[_Key, int] = field(default_factory=dict)

    def find(self, app: str, session_id: str) -> Session | None:
        return self._sessions.get((app, session_id))

    def get(self, app: str, session_id: str) -> Session:
        if session := self.find(app, session_id):
            return session
        raise NotFound(
            Reason.SESSION_NOT_FOUND,
            f"no session has the id '{session_id[:128]}', or its time is over; a session begins when a task names it",
        )

    def all(self) -> list[Session]:
        return [self._sessions[key] for key in sorted(self._sessions)]

    def by_record_key(self, record_key: str) -> Session | None:
        app, _, session_id = record_key.partition(" ")
        return self.find(app, session_id)

    def warm_tokens(self, app: str, session_id: str, worker_id: str) -> int:
        """Tokens that this worker would not have to evaluate again; 0 if it is cold there."""
        session = self.find(app, session_id)
        return session.warm_tokens if session and session.worker_id == worker_id else 0

    def of_worker(self, worker_id: str) -> list[Session]:
        """Those that were warm there last."""
        return [session for session in self._sessions.values() if session.worker_id == worker_id]

    def expires_at(self, session: Session) -> float:
        return self._expires[(session.app, session.session_id)]

    def put(self, session: Session, ends_at: float) -> None:
        """The session was used just now, and ends at `ends_at` unless it is used again."""
        key = (session.app, session.session_id)
        self._sessions[key] = session
        self._expires[key] = ends_at
        of_app = self._by_app.setdefault(session.app, {})
        of_app.pop(session.session_id, None)
        of_app[session.session_id] = None

    def remove(self, app: str, session_id: str) -> None:
        del self._sessions[(app, session_id)]
        del self._expires[(app, session_id)]
        del self._by_app[app][session_id]
        if not self._by_app[app]:
            del self._by_app[app]

    def one_too_many(self) -> Session | None:
        """Of the app that has most of them, so that none drives out those of others: the one that was used longest ago.
        None as long as there is room, or where all are in use.
        """
        if len(self._sessions) <= MOST_SESSIONS:
            return None
        for app in sorted(self._by_app, key=lambda app: -len(self._by_app[app])):
            for session_id in self._by_app[app]:
                if (app, session_id) not in self._tasks:
                    return self._sessions[(app, session_id)]
        return None

    def task_came(self, app: str, session_id: str) -> None:
        key = (app, session_id)
        self._tasks[key] = self._tasks.get(key, 0) + 1

    def task_went(self, app: str, session_id: str) -> None:
        key = (app, session_id)
        self._tasks[key] -= 1
        if not self._tasks[key]:
            del self._tasks[key]

    def is_busy(self, session: Session) -> bool:
        return (session.app, session.session_id) in self._tasks
