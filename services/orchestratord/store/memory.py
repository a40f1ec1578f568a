"""A store that forgets everything at the end of the process: for tests, and until there is one on disk."""

from llorch.identifiers import new_id
from orchestratord.core.catalog import Model
from orchestratord.core.task import TaskRequest, Terminal
from orchestratord.store.interface import Incarnation


class MemoryStore:
    def __init__(self) -> None:
        self._cluster_id = new_id("cluster")
        self._epoch = 0
        self._tasks: dict[str, TaskRequest] = {}
        self._terminals: dict[str, Terminal] = {}
        self._models: dict[str, Model] = {}

    async def begin_incarnation(self) -> Incarnation:
        self._epoch += 1
        return Incarnation(self._cluster_id, self._epoch)

    async def save_task(self, request: TaskRequest) -> None:
        self._tasks[request.task_id] = request

    async def save_terminal(self, task_id: str, terminal: Terminal) -> None:
        self._terminals[task_id] = terminal

    async def forget_task(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)
        self._terminals.pop(task_id, None)

    async def unfinished_tasks(self) -> list[TaskRequest]:
        return [request for task_id, request in self._tasks.items() if task_id not in self._terminals]

    async def save_model(self, model: Model) -> None:
        self._models[model.name] = model

    async def delete_model(self, name: str) -> None:
        self._models.pop(name, None)

    async def models(self) -> list[Model]:
        return list(self._models.values())

    async def close(self) -> None:
        """Nothing is open."""
