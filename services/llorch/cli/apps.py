"""`llorch apps`: the programs that use the system, each with a key of its own."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.option_flag import option_flag
from llorch.cli.output import AsJson, as_data, note, print_json, print_rows
from llorch.counted import counted
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.options.app import APP

if TYPE_CHECKING:
    from llama_orch.v2 import app_pb2

app = typer.Typer(
    name="apps", help="List the apps, add one and get its key, change or remove one.", invoke_without_command=True
)

Name = Annotated[str, typer.Argument(help='Name of the app, e.g. "open-webui".')]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME=MODEL", help="What it calls a model of the catalog; may be repeated."),
]
Priority = Annotated[str | None, typer.Option(help="Class of its tasks: interactive (the default) or batch.")]
Weight = Annotated[float | None, option_flag(APP["weight"])]
MaxTasks = Annotated[int | None, option_flag(APP["max_concurrent_tasks"], "--max-tasks")]
MaxTokens = Annotated[int | None, option_flag(APP["max_tokens_per_minute"], "--max-tokens-per-minute")]


@app.callback()
def apps(context: typer.Context, *, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """List the apps with their names for models, their share and their limits."""
    if context.invoked_subcommand is None:
        _list(address, token, json=json)


@app.command("list")
def list_apps(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """List the apps with their names for models, their share and their limits."""
    _list(address, token, json=json)


@app.command()
def add(
    name: Name,
    *,
    model: Models = None,
    priority: Priority = None,
    weight: Weight = None,
    max_tasks: MaxTasks = None,
    max_tokens: MaxTokens = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Add an app and print its key, once."""
    settings = _settings(model, priority, weight, max_tasks, max_tokens)
    made, key = ask(address, token, lambda client: client.create_app(name, **settings))
    if json:
        print_json({"app": as_data(made), "key": key})
    else:
        typer.echo(key)
        note(f"This is the key of {name}; it is shown here and never again.")


@app.command()
def update(
    name: Name,
    *,
    model: Models = None,
    priority: Priority = None,
    weight: Weight = None,
    max_tasks: MaxTasks = None,
    max_tokens: MaxTokens = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Change an app; what is not given stays, and so does its key. Names of models that are given replace all."""
    settings = _settings(model, priority, weight, max_tasks, max_tokens)
    if not settings:
        raise InvalidArgument(
            Reason.INVALID_FIELD,
            f"nothing of {name} is to change; give one or more of --model, --priority, --weight, --max-tasks, "
            "--max-tokens-per-minute",
        )
    changed = ask(address, token, lambda client: client.update_app(name, **settings))
    if json:
        print_json(as_data(changed))
    else:
        _print_apps([changed])


@app.command()
def rm(name: Name, *, address: Address = None, token: Token = None) -> None:
    """Remove an app; its key is refused from then on."""
    still_named_by = ask(address, token, lambda client: client.delete_app(name))
    note(f"{name} is no longer an app, and its key is refused")
    for warning in still_named_by:
        note(warning)


def _list(address: str | None, token: str | None, *, json: bool) -> None:
    found = ask(address, token, lambda client: client.apps())
    if json:
        print_json({"apps": [as_data(one) for one in found]})
    elif found:
        _print_apps(found)
    else:
        note("No app yet. Add one, and get its key: llorch apps add NAME")


def _settings(
    model: list[str] | None,
    priority: str | None,
    weight: float | None,
    max_tasks: int | None,
    max_tokens: int | None,
) -> dict[str, Any]:
    """What was given, by the contract's names."""
    given = {
        "models": None if model is None else dict(map(_named, model)),
        "priority": priority,
        "weight": weight,
        "max_concurrent_tasks": max_tasks,
        "max_tokens_per_minute": max_tokens,
    }
    return {field: value for field, value in given.items() if value is not None}


def _named(text: str) -> tuple[str, str]:
    name, equals, model = text.partition("=")
    if not (name and equals and model):
        raise invalid_field("--model", f"has to be NAME=MODEL, for example gpt-4o=coder, unlike '{text}'")
    return name, model


def _print_apps(found: "list[app_pb2.App]") -> None:
    print_rows(("APP", "CLASS", ">WEIGHT", "KEY"), [_row(one) for one in found], [_notes(one) for one in found])


def _row(one: "app_pb2.App") -> tuple[str, ...]:
    key = f"{one.key_fingerprint}…" if one.key_fingerprint else "none"
    return one.app, one.priority, f"{one.weight:g}", key


def _notes(one: "app_pb2.App") -> list[str]:
    """Its limits, its names for models, and which of these can't be used."""
    notes = [f"{name} is {model}" for name, model in sorted(one.models.items())]
    notes += [f"not met: {problem}" for problem in one.problems]
    if one.max_concurrent_tasks:
        notes.append(f"{counted(one.max_concurrent_tasks, 'task')} at once")
    if one.max_tokens_per_minute:
        notes.append(f"{one.max_tokens_per_minute} tokens a minute")
    return notes
