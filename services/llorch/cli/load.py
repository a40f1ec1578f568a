"""`llorch load`, `llorch unload`: models into memory and out of it, whether tasks wait for them or not."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.naming import worker_place
from llorch.cli.output import AsJson, note, print_json
from llorch.errors import FailedPrecondition, Reason

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2
    from llorch.sdk.async_client import AsyncClient

Model = Annotated[str, typer.Argument(help="Name or alias of the model; `llorch models` lists them.")]


def load(
    model: Model,
    *,
    on: Annotated[
        str | None, typer.Option(metavar="PLACE", help="MACHINE/GPU, e.g. garage/3090; else where it does best.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is loaded.")] = False,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Load a model before a task asks for it. Ctrl-C ends the waiting, not the load."""

    async def bring(client: "AsyncClient") -> tuple[str, str]:
        name = (await client.model(model)).spec.name
        worker_id = await client.load_model(name, on or "")
        return worker_id, "" if no_wait else await _wait_loaded(client, name, worker_id)

    worker_id, place = ask(address, token, bring)
    if json:
        print_json({"worker_id": worker_id})
    elif place:
        note(f"{model} is loaded on {place}")
    else:
        note(f"{model} will be loaded; `llorch ps` shows it")


def unload(
    model: Model,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also while tasks run on it; they go on elsewhere or end.")
    ] = False,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Take a model out of all memory. It comes back when a task asks for it."""
    worker_ids = ask(address, token, lambda client: client.unload_model(model, even_if_busy=force))
    if json:
        print_json({"worker_ids": worker_ids})
    else:
        note(f"{model} leaves memory" if worker_ids else f"{model} was not loaded")


async def _wait_loaded(client: "AsyncClient", model: str, worker_id: str) -> str:
    """Where it is ready; tells on the way what is going on. Raises why it could not be loaded."""
    told = ""
    async with aclosing(client.watch_state()) as states:
        async for state in states:
            load = next((load for load in state.loads if load.worker_id == worker_id), None)
            if load is not None and load.message not in ("", told):
                told = load.message
                note(told)
            if load is None and (place := _place_if_settled(state, model, worker_id)):
                return place
    raise FailedPrecondition(Reason.MODEL_LOAD_FAILED, f"the orchestrator ended before {model} was loaded")


def _place_if_settled(state: "fleet_service_pb2.State", model: str, worker_id: str) -> str:
    """Empty while its worker starts."""
    from llama_orch.v2 import worker_pb2

    worker = next((worker for worker in state.workers if worker.spec.worker_id == worker_id), None)
    if worker is None or worker.state == worker_pb2.WORKER_STATE_FAILED:
        failures = [failure for failure in state.load_failures if failure.model == model]
        own = [failure for failure in failures if failure.worker_id == worker_id]
        why = next(
            (f" on {failure.node_id}: {failure.message}" for failure in own or failures),
            ": it was told to leave again before it was ready",
        )
        raise FailedPrecondition(Reason.MODEL_LOAD_FAILED, f"{model} could not be loaded{why}")
    is_ready = worker.state == worker_pb2.WORKER_STATE_READY
    return worker_place(worker, state.devices) if is_ready else ""
