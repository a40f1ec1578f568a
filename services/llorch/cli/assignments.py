"""`llorch assignments`, `llorch unassign`: the rules that there are, each as a sentence."""

from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, as_data, note, print_json, print_rows

if TYPE_CHECKING:
    from llama_orch.v2 import assignment_pb2


def assignments(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """List the placement rules of models, of apps, and of models of apps."""
    rules = ask(address, token, lambda client: client.assignments())
    if json:
        print_json({"assignments": [as_data(rule) for rule in rules]})
    elif rules:
        rows = [(_subject(rule), _where(rule), rule.assignment_id) for rule in rules]
        print_rows(("WHO", "WHERE", "ID"), rows, [[*_terms(rule), *_problems(rule)] for rule in rules])
    else:
        note("Everything goes where there is room. Say otherwise: llorch assign MODEL --to MACHINE/GPU --pin")


def unassign(
    assignment_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the rule; `llorch assignments` has them.")],
    *,
    address: Address = None,
    token: Token = None,
) -> None:
    """Remove a placement rule."""
    ask(address, token, lambda client: client.unassign(assignment_id))
    note(f"{assignment_id} is no longer a rule")


def sentence(rule: "assignment_pb2.Assignment") -> str:
    """For example: coder for aider only on garage/RTX 3090, always loaded."""
    return ", ".join((f"{_subject(rule)} {_where(rule)}", *_terms(rule)))


def note_problems(rule: "assignment_pb2.Assignment") -> None:
    """For the person who has just set it, or changed what it is about."""
    for problem in _problems(rule):
        note(f"{rule.assignment_id} is {problem}")


def _problems(rule: "assignment_pb2.Assignment") -> list[str]:
    return [f"not met: {problem}" for problem in rule.problems]


def _subject(rule: "assignment_pb2.Assignment") -> str:
    if rule.model and rule.app:
        return f"{rule.model} for {rule.app}"
    return rule.model or f"app {rule.app}"


def _where(rule: "assignment_pb2.Assignment") -> str:
    from llorch.rpc.enum_tables import ASSIGNMENT_MODES

    mode = ASSIGNMENT_MODES.find(rule.mode)
    return f"{mode.before_places if mode else rule.mode} {' or '.join(rule.targets)}"


def _terms(rule: "assignment_pb2.Assignment") -> list[str]:
    """The terms of the rule beside the place."""
    least, most = rule.replicas_min, max(rule.replicas_min, rule.replicas_max)
    terms = ["always loaded"] if rule.keep_loaded else []
    if most:
        terms.append(f"{most} times" if least == most else f"{least} to {most} times")
    if rule.fallback:
        terms.append("elsewhere if that is lost")
    return terms
