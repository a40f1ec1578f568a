"""`llorch explain`: where something would go, or where a task went or could go, and why."""

from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, as_data, note, print_json, print_table, print_text
from llorch.errors import NotFound, invalid_field

if TYPE_CHECKING:
    from llama_orch.v2 import decision_pb2, task_pb2
    from llorch.sdk.async_client import AsyncClient

_GUESS = "~"
_SHOWN_FROM_MS = 50.0


def explain(
    model: Annotated[str | None, typer.Argument(help="Name or alias of a model, as the app would say it.")] = None,
    *,
    app: Annotated[str | None, typer.Option(help="As if this app asked.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=0, help="Tokens of the prompt.")] = 0,
    output_tokens: Annotated[int, typer.Option(min=0, help="Tokens of the answer.")] = 0,
    task: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead: where this task went, or what it waits for.")
    ] = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Say where a task of a model would go now, and why. Changes nothing."""
    if task is not None and model is None:
        _tell_of_task(task, address, token, json=json)
    elif model is not None and task is None:
        _tell_of_model(model, app or "", prompt_tokens, output_tokens, address, token, json=json)
    else:
        raise invalid_field("MODEL", "is needed, or --task with the id of a task, and not both")


def _tell_of_model(
    model: str, app: str, prompt_tokens: int, output_tokens: int, address: str | None, token: str | None, *, json: bool
) -> None:
    decision = ask(
        address,
        token,
        lambda client: client.explain(model, app=app, prompt_tokens=prompt_tokens, output_tokens=output_tokens),
    )
    if json:
        print_json(as_data(decision))
    else:
        _print_decision(decision)


def _tell_of_task(task: str, address: str | None, token: str | None, *, json: bool) -> None:
    from llorch.rpc.attempt_loss import loss_word

    decisions, shown, waits = ask(address, token, lambda client: _ask_of_task(client, task))
    lost = [loss_word(loss) for loss in shown.losses] if shown is not None else []
    failed = shown.error if shown is not None and shown.HasField("error") else None
    if json:
        now = {"now": as_data(waits)} if waits is not None else {}
        error = {"error": as_data(failed)} if failed is not None else {}
        print_json({"decisions": [as_data(decision) for decision in decisions], "losses": lost} | error | now)
        return
    for decision in reversed(decisions):
        print_text(f"{decision.model} {decision.summary}")
    if lost:
        print_text(f"Attempts were lost: {', '.join(map(str, lost))}.")
    if failed is not None:
        print_text(f"It failed: {failed.message}")
    if waits is not None:
        print_text("It waits. Now:")
        _print_decision(waits)
    elif not decisions and failed is None:
        note(f"Nothing was decided for {task}, or so long ago that it is not kept.")


async def _ask_of_task(
    client: "AsyncClient", task: str
) -> "tuple[list[decision_pb2.DecisionLog], task_pb2.Task | None, decision_pb2.DecisionLog | None]":
    """What was decided for the task, the newest first, the task if it is kept, and what holds now if it waits. Raises
    NotFound where neither it nor a decision is known any more.
    """
    from llama_orch.v2 import task_pb2

    decisions = await client.decisions(task_id=task)
    try:
        shown = await client.task(task)
    except NotFound:
        if not decisions:
            raise
        return decisions, None, None
    waits = shown.state == task_pb2.TASK_STATE_QUEUED
    return decisions, shown, await client.explain(task_id=task) if waits else None


def _print_decision(decision: "decision_pb2.DecisionLog") -> None:
    print_text(f"{decision.model} {decision.summary}")
    places = [candidate for candidate in decision.candidates if not candidate.filtered_by]
    names = list(dict.fromkeys(term.name for place in places for term in place.score))
    if not names:
        return
    rows = [(place.where, _total(place), *_terms(place, names)) for place in places]
    print_table(("PLACE", ">SECONDS", *(f">{name.upper()}" for name in names)), rows)
    if any(term.guess for place in places for term in place.score):
        note(f"{_GUESS} is a guess, to put places in an order: it is not known, or was never measured there.")


def _terms(place: "decision_pb2.PlacementCandidate", names: list[str]) -> list[str]:
    terms = {term.name: term for term in place.score}
    return [_seconds(terms[name].ms, is_guess=terms[name].guess) if name in terms else "" for name in names]


def _total(place: "decision_pb2.PlacementCandidate") -> str:
    return _seconds(sum(term.ms for term in place.score), is_guess=any(term.guess for term in place.score))


def _seconds(ms: float, *, is_guess: bool) -> str:
    """What is too short to be shown is not told to be nothing."""
    shown = f"{ms / 1000:.1f}" if ms >= _SHOWN_FROM_MS or ms == 0 else f"<{_SHOWN_FROM_MS / 1000:.1f}"
    return f"{_GUESS}{shown}" if is_guess else shown
