"""`llorch run MODEL PROMPT`: an answer on the terminal, as it comes."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llorch.assignment_mode import Mode
from llorch.cli import exit_codes
from llorch.cli.away import Away
from llorch.cli.connecting import Address, Token, ask
from llorch.cli.constraints import output_constraint
from llorch.cli.mode_flags import flag_per_mode
from llorch.cli.option_flag import option_flag
from llorch.cli.output import note
from llorch.cli.prompt_argument import said
from llorch.cli.quantities import milliseconds
from llorch.cli.terminal_text import terminal_text
from llorch.cli.waiting import Waiting
from llorch.errors import LlorchError
from llorch.options.generation import GENERATION
from llorch.options.sampling import SAMPLING
from llorch.options.task import PLACEMENT, TASK, WISHES

if TYPE_CHECKING:
    from llorch.sdk.async_client import AsyncClient
    from llorch.sdk.events import End, Placed
    from llorch.sdk.task_options import GenerateOptions, PlacementWishes
    from llorch.sdk.task_stream import TaskStream

_CANCEL_WITHIN_S = 2.0
_RECONNECT_FOR_S = 30.0
"""An orchestrator that begins anew finds its tasks before that; an answer is worth more than a table."""


def _place_flag(mode: Mode) -> Any:
    return Annotated[list[str] | None, option_flag(PLACEMENT[mode.word], metavar="PLACE")]


@flag_per_mode("places", WISHES, _place_flag, default=None)
def run(
    model: Annotated[str, typer.Argument(help="Name or alias of a model; `llorch models` lists them.")],
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from stdin.")],
    *,
    system: Annotated[str | None, typer.Option(help="Instructions that go before the prompt.")] = None,
    max_tokens: Annotated[int | None, option_flag(GENERATION["max_tokens"])] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    temperature: Annotated[float | None, option_flag(SAMPLING["temperature"])] = None,
    top_k: Annotated[int | None, option_flag(SAMPLING["top_k"])] = None,
    top_p: Annotated[float | None, option_flag(SAMPLING["top_p"])] = None,
    min_p: Annotated[float | None, option_flag(SAMPLING["min_p"])] = None,
    typical_p: Annotated[float | None, option_flag(SAMPLING["typical_p"])] = None,
    repeat_penalty: Annotated[float | None, option_flag(SAMPLING["repeat_penalty"])] = None,
    frequency_penalty: Annotated[float | None, option_flag(SAMPLING["frequency_penalty"])] = None,
    presence_penalty: Annotated[float | None, option_flag(SAMPLING["presence_penalty"])] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same draws.")] = None,
    json_schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="The answer follows this JSON schema: a file, or the schema.")
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The answer follows the GBNF grammar in this file.")
    ] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help=TASK["deterministic"].meaning)] = False,
    priority: Annotated[str | None, option_flag(TASK["priority"])] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="Fail if it is not done by then, e.g. 30s.")
    ] = None,
    session: Annotated[str | None, option_flag(TASK["session_id"], metavar="ID")] = None,
    places: dict[Mode, list[str] | None],
    raw: Annotated[bool, typer.Option("--raw", help="Give the prompt as it is, without chat template.")] = False,
    control_tokens: Annotated[
        bool, typer.Option("--control-tokens", help=f"With --raw: {GENERATION['control_tokens'].meaning}")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary on stderr.")] = False,
    address: Address = None,
    token: Token = None,
) -> None:
    """Ask a model and stream its answer to the terminal. Ctrl-C cancels."""
    schema_text, grammar_text = output_constraint(json_schema, grammar)
    options: GenerateOptions = {
        "system": system,
        "max_tokens": max_tokens,
        "stop": stop,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical_p": typical_p,
        "repeat_penalty": repeat_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "seed": seed,
        "json_schema": schema_text,
        "grammar": grammar_text,
        "deterministic": deterministic,
        "priority": priority,
        "deadline_ms": milliseconds("--deadline", deadline),
        "session_id": session,
        "placement": _wishes(places),
        "raw": raw,
        "control_tokens": control_tokens,
    }
    text = said(prompt, alone=not (system or raw))
    code = ask(
        address,
        token,
        lambda client: _answer(client, model, text, options, quiet=quiet),
        reconnect_for_s=_RECONNECT_FOR_S,
    )
    if code:
        raise typer.Exit(code)


def _wishes(places: dict[Mode, list[str] | None]) -> "PlacementWishes | None":
    return cast("PlacementWishes", {mode.word: named for mode, named in places.items() if named}) or None


async def _answer(client: "AsyncClient", model: str, prompt: str, options: "GenerateOptions", *, quiet: bool) -> int:
    printer = _Printer()
    async with client.generate(model, prompt, **options) as stream:
        try:
            return await _show(stream, printer, model, quiet=quiet)
        except asyncio.CancelledError:
            await _cancel(client, stream.task_id)
            raise
        except LlorchError:
            if printer.has_begun:
                printer.end()
                note(f"llorch: the answer breaks off here; its task was {stream.task_id}")
            raise


async def _show(stream: "TaskStream", printer: "_Printer", model: str, *, quiet: bool) -> int:
    from llorch.sdk.events import End, Failed, FinishReason, Narration, Placed, Started, Tokens

    cut_short = (FinishReason.CANCELLED, FinishReason.DEADLINE)
    place: Placed | None = None
    with Waiting(model, quiet=quiet) as waiting, Away(printer.break_line, quiet=quiet) as away:
        stream.when_it_waits(away.hear)
        async for event in stream:
            match event:
                case Started(task_id=task_id, predicted_start_ms=int(start_ms)) if start_ms:
                    waiting.expect(task_id, start_ms)
                case Placed():
                    place = event
                    waiting.begins()
                case Narration(text=text) if not printer.has_begun:
                    waiting.hear(text)
                case Narration(text=text) if not quiet:
                    printer.break_line()
                    note(f"llorch: {text}")
                case Tokens(choice=0, text=text):
                    waiting.is_over()
                    printer.write(text)
                case End():
                    printer.end()
                    if not quiet:
                        note(_summary(model, place, event))
                    return exit_codes.FAILED if event.finish_reason in cut_short else exit_codes.DONE
                case Failed(message=message):
                    printer.end()
                    note(f"llorch: {message}")
                    return exit_codes.FAILED
    return exit_codes.FAILED


async def _cancel(client: "AsyncClient", task_id: str) -> None:
    """Best effort: if the call fails, the orchestrator notices by itself that the stream has no reader any more."""
    if task_id:
        with suppress(LlorchError, TimeoutError):
            async with asyncio.timeout(_CANCEL_WITHIN_S):
                await client.cancel(task_id)


class _Printer:
    """Writes text as it comes; control characters only to what is no terminal."""

    def __init__(self) -> None:
        self._to_terminal = sys.stdout.isatty()
        self._last = ""

    @property
    def has_begun(self) -> bool:
        return bool(self._last)

    def write(self, text: str) -> None:
        if text:
            sys.stdout.write(terminal_text(text) if self._to_terminal else text)
            sys.stdout.flush()
            self._last = text[-1]

    def break_line(self) -> None:
        """What comes next on this terminal is no part of the answer, which goes on below it."""
        if self._to_terminal:
            self.end()

    def end(self) -> None:
        if self._last not in ("", "\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._last = "\n"


def _summary(model: str, place: "Placed | None", end: "End") -> str:
    speed = end.tokens_per_second
    parts = [
        model,
        f"{end.tokens_out} tokens",
        f"{speed:.1f} tokens/s" if speed is not None else "",
        f"first token {end.first_token_ms} ms" if end.first_token_ms is not None else "",
        f"queued {end.queue_ms} ms",
        end.finish_reason.value,
    ]
    if place is not None:
        devices = " + ".join(device.name for device in place.devices)
        parts.insert(1, f"{place.engine} {place.engine_version} on {place.node_id}/{devices}")
        parts += [mark for mark in ("cpu", "simulated") if getattr(place, mark)]
    return "[" + " · ".join(part for part in parts if part) + "]"
