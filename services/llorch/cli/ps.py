"""`llorch ps`: what is loaded or on its way, and what runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.naming import clock_time, enum_word, node_mark, pool_mark, worker_marks, worker_place
from llorch.cli.node_troubles import note_troubles
from llorch.cli.output import AsJson, as_data, gib, note, note_sentence, print_json, print_rows
from llorch.cli.worker_names import short_ids

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2, model_pb2, task_pb2, worker_pb2
    from llorch.sdk.async_client import AsyncClient

_COLUMNS = ("MODEL", "STATE", ">BUSY", ">TOKENS/S", ">CONTEXT", "WHERE", "WORKER")


def ps(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """Show the workers (a worker is one loaded model) and the tasks that run."""
    state, tasks, models = ask(address, token, _look)
    if json:
        data = as_data(state)
        shown = {name: data[name] for name in ("workers", "loads", "load_failures", "queues")}
        print_json({**shown, "tasks": [as_data(task) for task in tasks]})
        return
    if state.workers or state.loads:
        _print_workers(state, {model.spec.name: model for model in models})
    else:
        note("No model is loaded. One is loaded when a task asks for it.")
    if tasks:
        print_rows(("TASK", "MODEL", "STATE", ">TOKENS"), [_task_row(task) for task in tasks], [()] * len(tasks))
    note_troubles(state)
    for failure in state.load_failures:
        note_sentence(_failure(failure))
    waiting = sum(queue.depth for queue in state.queues)
    if waiting:
        note(f"{waiting} more {'task waits' if waiting == 1 else 'tasks wait'}.")


async def _look(
    client: "AsyncClient",
) -> "tuple[fleet_service_pb2.State, list[task_pb2.Task], list[model_pb2.Model]]":
    from llama_orch.v2 import task_pb2

    return await client.state(), await client.tasks(task_pb2.TASK_STATE_RUNNING), await client.models()


def _print_workers(state: "fleet_service_pb2.State", models: "Mapping[str, model_pb2.Model]") -> None:
    """Workers, then loads that have none yet."""
    there = {worker.spec.worker_id for worker in state.workers}
    loads = [load for load in state.loads if load.worker_id not in there]
    short = short_ids([*there, *(load.worker_id for load in loads)])
    rows = [(*_row(worker, state), short[worker.spec.worker_id]) for worker in state.workers]
    rows += [(*_load_row(load), short[load.worker_id]) for load in loads]
    notes = [_notes(worker, state, models.get(worker.spec.model)) for worker in state.workers]
    print_rows(_COLUMNS, rows, [*notes, *([load.message] if load.message else [] for load in loads)])


def _row(worker: "worker_pb2.Worker", state: "fleet_service_pb2.State") -> tuple[str, ...]:
    from llama_orch.v2 import worker_pb2

    word = enum_word(worker_pb2.WorkerState, worker.state, "WORKER_STATE_")
    if worker.state == worker_pb2.WORKER_STATE_STARTING and worker.HasField("load_progress"):
        word = f"{word} {worker.load_progress:.0%}"
    return (
        worker.spec.model,
        word,
        f"{worker.stats.slots_busy}/{worker.spec.slots}",
        f"{worker.stats.tokens_per_second:.1f}" if worker.stats.tokens_per_second else "-",
        str(worker.spec.context_per_slot or ""),
        worker_place(worker, state.devices),
    )


def _load_row(load: "fleet_service_pb2.LoadState") -> tuple[str, ...]:
    from llama_orch.v2 import fleet_service_pb2

    phase = enum_word(fleet_service_pb2.LoadPhase, load.phase, "LOAD_PHASE_").replace("_", " ")
    return load.model, phase, "", "", "", load.node_id


def _notes(worker: "worker_pb2.Worker", state: "fleet_service_pb2.State", model: "model_pb2.Model | None") -> list[str]:
    notes = worker_marks(worker)
    spec = worker.spec
    if len(spec.device_ids) > 1 and len(spec.reservation_mib) == len(spec.device_ids):
        names = {
            ledger.device.device_id: ledger.device.name for ledger in state.devices if ledger.node_id == worker.node_id
        }
        shares = zip(spec.device_ids, spec.reservation_mib, strict=True)
        notes.append(" + ".join(f"{gib(mib)} GiB of {names.get(device_id, device_id)}" for device_id, mib in shares))
    if model is not None and spec.context_per_slot and model.context > spec.context_per_slot:
        notes.append(f"context lowered from {model.context}, which does not fit")
    node = next((node for node in state.nodes if node.node_id == worker.node_id), None)
    if node is not None:
        notes += filter(None, (node_mark(node), pool_mark(node, spec.device_ids)))
    return notes


def _task_row(task: "task_pb2.Task") -> tuple[str, ...]:
    from llama_orch.v2 import task_pb2

    state = enum_word(task_pb2.TaskState, task.state, "TASK_STATE_")
    return task.task_id, task.model, state, str(task.tokens_out)


def _failure(failure: "fleet_service_pb2.LoadFailure") -> str:
    when = f" at {clock_time(failure.time)}" if failure.HasField("time") else ""
    more = f" `llorch logs {failure.model}` shows its log." if failure.worker_id else ""
    return f"{failure.model} could not be loaded on {failure.node_id}{when}: {failure.message.rstrip('.')}.{more}"
