"""Commands with a flag for each mode of an assignment, such as --pin."""

from collections.abc import Callable, Iterable
from functools import wraps
from inspect import Parameter, Signature, signature
from itertools import chain
from typing import Any

from llorch.assignment_mode import Mode

Command = Callable[..., None]


def flag_per_mode(
    parameter: str, modes: Iterable[Mode], flag: Callable[[Mode], Any], default: object
) -> Callable[[Command], Command]:
    """The command takes what was given as one dict by mode; `flag` makes the annotation of each flag.

    On the command line the flags stand where `parameter` stands in the signature.
    """
    asked = tuple(modes)
    flags = [_keyword(mode.word, default, flag(mode)) for mode in asked]

    def with_flags(command: Command) -> Command:
        @wraps(command)
        def called(**given: Any) -> None:
            by_mode = {mode: given.pop(mode.word) for mode in asked}
            command(**given, **{parameter: by_mode})

        called.__signature__ = _shown(command, parameter, flags)  # type: ignore[attr-defined]  # what typer reads
        return called

    return with_flags


def _keyword(name: str, default: object, annotation: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _shown(command: Command, parameter: str, flags: list[Parameter]) -> Signature:
    own = signature(command)
    shown = ((flags if name == parameter else [each]) for name, each in own.parameters.items())
    return own.replace(parameters=list(chain.from_iterable(shown)))
