"""`llorch ps`: what is loaded, and what runs."""

from typing import TYPE_CHECKING

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.naming import enum_word, worker_marks, worker_place
from llorch.cli.output import AsJson, as_data, note, print_json, print_table

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2, task_pb2
    from llorch.sdk.async_client import AsyncClient


def ps(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """Show the workers (a worker is one loaded model) and the tasks that run."""
    state, tasks = ask(address, token, _look)
    if json:
        data = as_data(state)
        print_json({"workers": data["workers"], "queues": data["queues"], "tasks": [as_data(task) for task in tasks]})
        return
    if state.workers:
        _print_workers(state)
    else:
        note("No model is loaded. One is loaded when a task asks for it.")
    if tasks:
        print_table(("TASK", "MODEL", "STATE", ">TOKENS"), [_task_row(task) for task in tasks])
    waiting = sum(queue.depth for queue in state.queues)
    if waiting:
        note(f"{waiting} more {'task waits' if waiting == 1 else 'tasks wait'}.")


async def _look(client: "AsyncClient") -> "tuple[fleet_service_pb2.State, list[task_pb2.Task]]":
    from llama_orch.v2 import task_pb2

    return await client.state(), await client.tasks(task_pb2.TASK_STATE_RUNNING)


def _print_workers(state: "fleet_service_pb2.State") -> None:
    from llama_orch.v2 import worker_pb2

    rows = [
        (
            worker.spec.model,
            enum_word(worker_pb2.WorkerState, worker.state, "WORKER_STATE_"),
            f"{worker.stats.slots_busy}/{worker.spec.slots}",
            f"{worker.stats.tokens_per_second:.1f}" if worker.HasField("stats") else "",
            worker_place(worker, state.devices),
            ", ".join(worker_marks(worker)),
            worker.spec.worker_id,
        )
        for worker in state.workers
    ]
    print_table(("MODEL", "STATE", ">BUSY", ">TOKENS/S", "WHERE", "MARKS", "WORKER"), rows)


def _task_row(task: "task_pb2.Task") -> tuple[str, ...]:
    from llama_orch.v2 import task_pb2

    state = enum_word(task_pb2.TaskState, task.state, "TASK_STATE_")
    return task.task_id, task.model, state, str(task.log_entries)
