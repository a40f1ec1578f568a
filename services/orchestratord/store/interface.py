"""The interface of every store. One contract suite runs over all of them."""

from dataclasses import dataclass
from typing import Protocol

from orchestratord.core.catalog import Model
from orchestratord.core.task import TaskRequest, Terminal


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Which cluster this is, and the how-manieth life of its orchestrator."""

    cluster_id: str
    control_epoch: int


class Store(Protocol):
    """Every call returns only when what it was given is kept, or raises Unavailable / STORE_FAILED.

    A call that failed has kept nothing. Calls come from one event loop, several may be under way at once.
    """

    async def begin_incarnation(self) -> Incarnation:
        """A new life: the epoch is one higher than ever before, and kept before anybody sees it."""
        ...

    async def save_task(self, request: TaskRequest) -> None: ...

    async def save_terminal(self, task_id: str, terminal: Terminal) -> None: ...

    async def forget_task(self, task_id: str) -> None: ...

    async def unfinished_tasks(self) -> list[TaskRequest]:
        """Accepted tasks without a terminal, in the order in which they were accepted."""
        ...

    async def save_model(self, model: Model) -> None: ...

    async def delete_model(self, name: str) -> None: ...

    async def models(self) -> list[Model]: ...

    async def close(self) -> None: ...
