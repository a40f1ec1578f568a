"""The callers of this pool manager: the orchestrator, the operator, and every worker about itself."""

from collections.abc import Callable, Mapping

from llorch.auth import BearerAuth, Identity, bearer_token

_WORKER = "worker:"


class PoolManagerAuth:
    """A worker shows the secret that it was started with; `BearerAuth` decides about all other callers."""

    def __init__(self, others: BearerAuth, worker_by_token: Callable[[str], str | None]) -> None:
        self._others = others
        self._worker_by_token = worker_by_token

    def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        token = bearer_token(metadata)
        worker_id = self._worker_by_token(token) if token else None
        if worker_id is not None:
            return Identity(f"{_WORKER}{worker_id}")
        return self._others.authenticate(metadata, peer)


def is_worker(identity: str) -> bool:
    return identity.startswith(_WORKER)


def is_this_worker(identity: str, worker_id: str) -> bool:
    return identity == f"{_WORKER}{worker_id}"
