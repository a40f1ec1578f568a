"""`llorch`: the commands, and what becomes of their errors."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from llorch.cli import (
    apps,
    assign,
    assignments,
    doctor,
    exit_codes,
    explain,
    gpu,
    gpus,
    load,
    logs,
    model_care,
    pool,
    ps,
    pull,
    run,
    simulate,
    tokens,
    up,
    version,
)
from llorch.errors import LlorchError, Reason
from llorch.leaving import leave
from llorch.sdk.failures import Unreachable

app = typer.Typer(
    name="llorch",
    help="Local LLMs on your GPUs: say which model runs where, and use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(run.run)
app.command()(tokens.tokens)
app.command()(ps.ps)
app.add_typer(model_care.app)
app.command()(pull.pull)
app.command()(load.load)
app.command()(load.unload)
app.command()(explain.explain)
app.command()(simulate.simulate)
app.command()(assign.assign)
app.command()(assignments.assignments)
app.command()(assignments.unassign)
app.add_typer(apps.app)
app.command()(gpus.gpus)
app.add_typer(gpu.app)
app.add_typer(pool.app)
app.command()(logs.logs)
app.command()(doctor.doctor)
app.command()(version.version)


def main() -> NoReturn:
    """The console script."""
    leave(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Runs a command line. Every error becomes one line on stderr, and the exit code that is returned."""
    try:
        return int(app(list(arguments), standalone_mode=False) or exit_codes.DONE)
    except typer.TyperException as error:
        # With nothing to say the help has been shown already.
        if message := error.format_message():
            _say(f"{message.rstrip('.')}; {_behind_dashes(message)}see `{_command_of(error)} --help`")
        return error.exit_code
    except LlorchError as error:
        _say(error.message)
        return _exit_code(error)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Exception as error:
        if os.environ.get("LLORCH_DEBUG"):
            raise
        kind = type(error).__name__
        _say(f"something unexpected went wrong ({kind}: {error}); LLORCH_DEBUG=1 shows where")
        return exit_codes.FAILED


def _behind_dashes(message: str) -> str:
    """Models and apps may have names that look like options."""
    return "a name that begins with - goes behind --; " if message.startswith("No such option: -") else ""


def _command_of(error: typer.TyperException) -> str:
    """The command whose arguments were wrong, as it was called."""
    context = getattr(error, "ctx", None)
    path = "" if context is None else context.command_path
    return path if path.startswith("llorch") else "llorch"


def _exit_code(error: LlorchError) -> int:
    if isinstance(error, Unreachable):
        return exit_codes.UNREACHABLE
    return exit_codes.USAGE if error.reason in (Reason.INVALID_FIELD, Reason.NAME_TAKEN) else exit_codes.FAILED


def _say(message: str) -> None:
    print(f"llorch: {message}", file=sys.stderr)  # noqa: T201  # the one line for the user
