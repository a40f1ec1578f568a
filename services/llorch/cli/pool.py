"""`llorch pool drain`, `reload`, `purge`: a set of GPUs is emptied, for a change of its machine or for good."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, as_data, note, print_json
from llorch.cli.quantities import milliseconds

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2
    from llorch.sdk.async_client import AsyncClient

app = typer.Typer(
    name="pool",
    help="Empty a pool, which is a set of GPUs of one machine, and put it to work again.",
    no_args_is_help=True,
)


class Policy(StrEnum):
    """The contract's `DrainPolicy`, as it is typed."""

    REQUEUE = "requeue"
    WAIT = "wait"
    FAIL = "fail"


Pool = Annotated[str, typer.Argument(help="Name of the pool. Without `pools` in its settings a machine is one pool.")]
Deadline = Annotated[
    str | None, typer.Option(metavar="TIME", help="Time for running tasks to finish, such as 5m. By default 30s.")
]
AtDeadline = Annotated[
    Policy, typer.Option("--policy", help="Then they go on elsewhere, are waited for all the same, or fail.")
]


@app.command()
def drain(
    pool: Pool,
    *,
    deadline: Deadline = None,
    policy: AtDeadline = Policy.REQUEUE,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Empty a pool: idle models leave now, busy ones with their tasks, and nothing new comes until it is reloaded."""
    options = _options(deadline, policy)
    health = _begin(address, token, pool, lambda client: client.drain_pool(pool, **options))
    _tell(health, f"{pool} gets no new work until `llorch pool reload {pool}`", json=json)


@app.command()
def reload(
    pool: Pool,
    *,
    deadline: Deadline = None,
    policy: AtDeadline = Policy.REQUEUE,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Empty a pool, start again what ran there with current engine and settings, and put it to work again."""
    options = _options(deadline, policy)
    health = _begin(address, token, pool, lambda client: client.reload_pool(pool, **options))
    _tell(health, f"{pool} starts its models again", json=json)


@app.command()
def purge(
    pool: Pool,
    *,
    deadline: Deadline = None,
    policy: AtDeadline = Policy.REQUEUE,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Empty a pool, and delete saved sessions and the downloaded model files that no other pool of its machine uses."""
    options = _options(deadline, policy)
    health = _begin(address, token, pool, lambda client: client.purge_pool(pool, **options))
    told = f"{pool} loses its files and gets no new work until `llorch pool reload {pool}`"
    _tell(health, told, json=json)


def _options(deadline: str | None, policy: Policy) -> dict[str, Any]:
    from llama_orch.v2 import fleet_service_pb2

    value = fleet_service_pb2.DrainPolicy.Value(f"DRAIN_POLICY_{policy.name}")
    return {"deadline_ms": milliseconds("--deadline", deadline), "policy": value}


def _begin(
    address: str | None, token: str | None, pool: str, order: "Callable[[AsyncClient], Awaitable[None]]"
) -> "fleet_service_pb2.GetPoolHealthResponse":
    async def begin(client: "AsyncClient") -> "fleet_service_pb2.GetPoolHealthResponse":
        await order(client)
        return await client.pool_health(pool)

    return ask(address, token, begin)


def _tell(health: "fleet_service_pb2.GetPoolHealthResponse", told: str, *, json: bool) -> None:
    if json:
        print_json(as_data(health))
        return
    note(told)
    for blocker in health.blockers:
        note(f"  waits: {blocker.message}")
