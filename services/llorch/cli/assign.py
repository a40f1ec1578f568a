"""`llorch assign`: where models and apps run."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llorch.cli.assignments import sentence
from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, as_data, note, print_json
from llorch.errors import invalid_field

if TYPE_CHECKING:
    from llama_orch.v2 import assignment_pb2

_REPLICAS = re.compile(r"(?P<least>\d{1,4})?(?P<colon>:)?(?P<most>\d{1,4})?", re.ASCII)


def assign(
    model: Annotated[str | None, typer.Argument(help="Name or alias of a model; without it, all of an app.")] = None,
    *,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="MACHINE, MACHINE/GPU, MACHINE/GPU+GPU (one model over both) or a pool. A GPU by its number, a part "
            "of its name or the beginning of its UUID. Repeated: any of these.",
        ),
    ] = None,
    app: Annotated[str | None, typer.Option(help="Only when this app asks; `llorch apps` lists them.")] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Only there. The default.")] = False,
    prefer: Annotated[bool, typer.Option("--prefer", help="There if it can.")] = False,
    avoid: Annotated[bool, typer.Option("--avoid", help="Not there.")] = False,
    keep_loaded: Annotated[bool, typer.Option("--keep-loaded", help="Loaded at once and never evicted.")] = False,
    replicas: Annotated[
        str | None, typer.Option(metavar="MIN[:MAX]", help="How many times it is loaded, by demand up to MAX.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="With --pin: elsewhere while that machine or GPU is lost.")
    ] = False,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Say where a model, an app, or a model of an app runs. Refused if it contradicts another rule."""
    mode = _mode(pin=pin, prefer=prefer, avoid=avoid)
    settings: dict[str, Any] = {"keep_loaded": keep_loaded, "fallback": fallback, **_replicas(replicas)}
    rule = ask(
        address, token, lambda client: client.assign(_places(to), mode, model=model or "", app=app or "", **settings)
    )
    if json:
        print_json(as_data(rule))
    else:
        note(f"{sentence(rule)}; `llorch unassign {rule.assignment_id}` takes that back")


def _mode(*, pin: bool, prefer: bool, avoid: bool) -> "assignment_pb2.AssignmentMode.ValueType":
    from llama_orch.v2 import assignment_pb2

    if pin + prefer + avoid > 1:
        raise invalid_field("--pin", "goes without --prefer and --avoid; a rule says one of them")
    if prefer:
        return assignment_pb2.ASSIGNMENT_MODE_PREFER
    return assignment_pb2.ASSIGNMENT_MODE_AVOID if avoid else assignment_pb2.ASSIGNMENT_MODE_PIN


def _places(to: list[str] | None) -> list[str]:
    if not to:
        raise invalid_field("--to", "is needed: a place such as garage/3090; `llorch gpus` lists what there is")
    return to


def _replicas(text: str | None) -> dict[str, int]:
    """`2` is always two, `1:3` at least one and at most three, `:3` none unless asked for."""
    if text is None:
        return {}
    match = _REPLICAS.fullmatch(text)
    if match is None or not (match["least"] or match["most"]):
        raise invalid_field("--replicas", f"has to be a number or two such as 1:3, unlike '{text}'")
    least = int(match["least"] or 0)
    most = int(match["most"] or 0) if match["colon"] else least
    return {"replicas_min": least, "replicas_max": most}
