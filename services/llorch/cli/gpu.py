"""`llorch gpu release`, `llorch gpu resume`: a GPU for its owner, and back."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, note, print_json
from llorch.cli.quantities import milliseconds

if TYPE_CHECKING:
    from llorch.sdk.async_client import AsyncClient

app = typer.Typer(
    name="gpu", help="Take a GPU away from llama-orch for something else, and give it back.", no_args_is_help=True
)

Gpu = Annotated[str, typer.Argument(metavar="MACHINE/GPU", help="For example garage/3090; `llorch gpus` lists them.")]


@app.command()
def release(
    gpu: Gpu,
    *,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Give it back by itself after this time, such as 3h.")
    ] = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Take a GPU away: idle models leave now, busy ones when their tasks have ended, and nothing new comes."""
    for_ms = milliseconds("--for", for_)

    async def take(client: "AsyncClient") -> tuple[list[str], dict[str, str]]:
        models = {worker.spec.worker_id: worker.spec.model for worker in (await client.state()).workers}
        return await client.release_gpu(gpu, for_ms), models

    leaving, models = ask(address, token, take)
    if json:
        print_json({"worker_ids": leaving})
        return
    back = f"for {for_}" if for_ else f"until `llorch gpu resume {gpu}`"
    note(f"{gpu} is released {back}{_who_leaves([models.get(worker, worker) for worker in leaving])}")


@app.command()
def resume(gpu: Gpu, *, address: Address = None, token: Token = None) -> None:
    """Give a released GPU back to llama-orch."""
    ask(address, token, lambda client: client.resume_gpu(gpu))
    note(f"{gpu} takes models again")


def _who_leaves(models: list[str]) -> str:
    if not models:
        return "; nothing was on it"
    told = (f"{model} ({number} times)" if number > 1 else model for model, number in Counter(models).items())
    return f"; still leaving it: {', '.join(told)}"
