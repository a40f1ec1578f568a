"""`llorch assign`: where models and apps run."""

import re
from typing import Annotated, Any

import typer

from llorch.assignment_mode import STANDARD, Mode
from llorch.cli.assignments import note_problems, sentence
from llorch.cli.connecting import Address, Token, ask
from llorch.cli.mode_flags import flag_per_mode
from llorch.cli.output import AsJson, as_data, note, print_json
from llorch.errors import invalid_field
from llorch.options.assignment import ASSIGNMENT
from llorch.options.checking import check_value

_REPLICAS = ASSIGNMENT["replicas_max"]
_REPLICAS_FORM = re.compile(r"(?P<least>\d{1,4})?(?P<colon>:)?(?P<most>\d{1,4})?", re.ASCII)


def _mode_flag(mode: Mode) -> Any:
    meaning = f"{mode.meaning} The default." if mode is STANDARD else mode.meaning
    return Annotated[bool, typer.Option(f"--{mode.word}", help=meaning)]


@flag_per_mode("modes", Mode, _mode_flag, default=False)
def assign(
    model: Annotated[str | None, typer.Argument(help="Name or alias of a model; without it, all of an app.")] = None,
    *,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="MACHINE, MACHINE/GPU, MACHINE/GPU+GPU (one model over both) or a pool. A GPU by its number, words "
            "of its name or the beginning of its UUID. Repeated: any of these.",
        ),
    ] = None,
    app: Annotated[str | None, typer.Option(help="Only when this app asks; `llorch apps` lists them.")] = None,
    modes: dict[Mode, bool],
    keep_loaded: Annotated[bool, typer.Option("--keep-loaded", help="Loaded at once and never evicted.")] = False,
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="MIN[:MAX]", help=f"How many times it is loaded, by demand up to MAX; each {_REPLICAS.range_words}."
        ),
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="With --pin: elsewhere while that machine or GPU is lost.")
    ] = False,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Say where a model, an app, or a model of an app runs. Refused if it contradicts another rule."""
    from llorch.rpc.enum_tables import ASSIGNMENT_MODES

    mode = ASSIGNMENT_MODES.to_proto(_mode(modes))
    settings: dict[str, Any] = {"keep_loaded": keep_loaded, "fallback": fallback, **_replicas(replicas)}
    rule = ask(
        address, token, lambda client: client.assign(_places(to), mode, model=model or "", app=app or "", **settings)
    )
    if json:
        print_json(as_data(rule))
    else:
        note(f"{sentence(rule)}; `llorch unassign {rule.assignment_id}` takes that back")
    note_problems(rule)


def _mode(flags: dict[Mode, bool]) -> Mode:
    given = [mode for mode, is_given in flags.items() if is_given]
    if len(given) > 1:
        others = " and ".join(f"--{mode.word}" for mode in Mode if mode is not STANDARD)
        raise invalid_field(f"--{STANDARD.word}", f"goes without {others}; a rule says one of them")
    return given[0] if given else STANDARD


def _places(to: list[str] | None) -> list[str]:
    if not to:
        raise invalid_field("--to", "is needed: a place such as garage/3090; `llorch gpus` lists what there is")
    return to


def _replicas(text: str | None) -> dict[str, int]:
    """`2` is always two, `1:3` at least one and at most three, `:3` none unless asked for."""
    if text is None:
        return {}
    match = _REPLICAS_FORM.fullmatch(text)
    if match is None or not (match["least"] or match["most"]):
        raise invalid_field("--replicas", f"has to be a number or two such as 1:3, unlike '{text}'")
    least = int(match["least"] or 0)
    most = int(match["most"] or 0) if match["colon"] else least
    check_value("--replicas", _REPLICAS, (least, most))
    return {"replicas_min": least, "replicas_max": most}
