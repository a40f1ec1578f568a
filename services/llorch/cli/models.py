"""`llorch models`: the models that tasks may name, where they come from, and where they are loaded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.naming import enum_word, worker_place
from llorch.cli.option_flag import option_flag
from llorch.cli.output import AsJson, as_data, gib, note, print_json, print_rows, print_table
from llorch.cli.pull import pull
from llorch.cli.quantities import mib, milliseconds
from llorch.cli.source_argument import reference_of
from llorch.options.model import MODEL, ModelSettings
from llorch.split_mode import SplitMode

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

    from llama_orch.v2 import fleet_service_pb2, model_pb2
    from llorch.sdk.async_client import AsyncClient

app = typer.Typer(
    name="models", help="List the models, show one, add one, or download one.", invoke_without_command=True
)

_ORIGIN_WORDS = {
    "default": "default",
    "file": "settings file",
    "call": "given when it was added",
    "package": "its package",
    "model": "the model's own file",
    "node": "the folder of a machine",
}


@app.callback()
def models(context: typer.Context, *, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """List the models with their size, context, origin, and where they are loaded."""
    if context.invoked_subcommand is not None:
        return
    found, state = ask(address, token, _look)
    if json:
        print_json({"models": [as_data(model) for model in found]})
    elif found:
        rows = [_row(model) for model in found]
        print_rows(("NAME", ">MiB", ">CONTEXT", "STATE"), rows, [_notes(model, state) for model in found])
    else:
        note(
            "No model yet. Add one: llorch models add NAME /path/to/model.gguf, or llorch pull hf:ORG/REPO:QUANTIZATION"
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name or alias.")],
    *,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Show what is known of a model, and where each value came from."""
    model = ask(address, token, lambda client: client.model(name))
    if json:
        print_json(as_data(model))
    else:
        _print_model(model)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name that tasks use.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A .gguf file on the machine that runs it, or a reference such as hf:ORG/REPO:QUANTIZATION."
        ),
    ],
    *,
    context: Annotated[int | None, option_flag(MODEL["context"])] = None,
    slots: Annotated[int | None, option_flag(MODEL["slots"])] = None,
    split: Annotated[
        SplitMode | None,
        typer.Option(help="Over several GPUs if none alone holds it (auto, the default), always (layer), or never."),
    ] = None,
    vram_claim: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that it takes, e.g. 11GiB, instead of the estimate.")
    ] = None,
    idle_unload: Annotated[
        str | None, typer.Option(metavar="TIME", help="Unload after this time without use, e.g. 15m.")
    ] = None,
    engine: Annotated[str | None, option_flag(MODEL["engine"])] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name for it; may be repeated.")] = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Add a model, or change one that was added."""
    settings: ModelSettings = {
        "context": context,
        "slots": slots,
        "split": None if split is None else f"SPLIT_MODE_{split.name}",
        "vram_claim_mib": mib("--vram-claim", vram_claim),
        "idle_unload_ms": milliseconds("--idle-unload", idle_unload),
        "aliases": alias,
        "engine": engine,
    }
    reference = reference_of(source)
    model, warnings = ask(address, token, lambda client: client.add_model(name, reference, **settings))
    if json:
        print_json(as_data(model))
    else:
        _print_model(model)
    for warning in warnings:
        note(warning)


app.command()(pull)


async def _look(
    client: "AsyncClient",
) -> "tuple[list[model_pb2.Model], fleet_service_pb2.State]":
    return await client.models(), await client.state()


def _row(model: "model_pb2.Model") -> tuple[str, ...]:
    from llama_orch.v2 import model_pb2

    return (
        ", ".join((model.spec.name, *model.spec.aliases)),
        str(model.size_mib) if model.HasField("size_mib") else "",
        str(model.context or ""),
        enum_word(model_pb2.ModelState, model.state, "MODEL_STATE_"),
    )


def _notes(model: "model_pb2.Model", state: "fleet_service_pb2.State") -> list[str]:
    """Where it is loaded, and where it comes from."""
    from llama_orch.v2 import worker_pb2

    loaded = [
        f"on {worker_place(worker, state.devices)}"
        for worker in state.workers
        if worker.spec.model == model.spec.name and worker.state == worker_pb2.WORKER_STATE_READY
    ]
    return [*loaded, *model.problems, model.provenance or model.spec.source]


def _print_model(model: "model_pb2.Model") -> None:
    from llama_orch.v2 import model_pb2

    def origin(field: str) -> str:
        word = enum_word(model_pb2.ValueOrigin, model.origins.get(field, 0), "VALUE_ORIGIN_")
        return _ORIGIN_WORDS.get(word, "")

    values = {field.name: _shown(field, value) for field, value in model.spec.ListFields()}
    values.setdefault("context", str(model.context or "not known yet"))
    values.pop("name")
    rows = [("name", model.spec.name, model.provenance)]
    rows += [(_label(field), value, origin(field)) for field, value in values.items()]
    rows.append(("state", enum_word(model_pb2.ModelState, model.state, "MODEL_STATE_"), ""))
    if model.HasField("size_mib"):
        rows.append(("size", f"{model.size_mib} MiB", ""))
    if model.digest:
        rows.append(("sha256", model.digest, ""))
    rows.append(("ready workers", str(model.workers_ready), ""))
    rows += [("problem", problem, "") for problem in model.problems]
    print_table(("", "", ""), rows)


def _label(field: str) -> str:
    """The unit is told with the value."""
    return field.removesuffix("_ms").removesuffix("_mib").replace("_", " ")


def _shown(field: "FieldDescriptor", value: Any) -> str:
    """A value of the contract in words: with its unit, enums without their prefix, lists with commas."""
    if field.name.endswith("_mib"):
        return f"{gib(value)} GiB"
    if field.name.endswith("_ms"):
        return f"{value / 60_000:g} min"
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return name.removeprefix(prefix).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
