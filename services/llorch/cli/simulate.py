"""`llorch simulate`: what a day of work would be like, and what other hardware or another rule would change."""

import json as json_text
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, print_json, print_table, print_text
from llorch.cli.server_packages import require_server_packages
from llorch.counted import counted
from llorch.errors import Internal, InvalidArgument, NotFound, Reason, invalid_field
from llorch.lifeline import with_parent

if TYPE_CHECKING:
    from llama_orch.v2 import decision_pb2

_ARROW = " → "
_MOST_PROBLEMS = 5
_REFUSED = 3
"""Exit code of the simulation where its stderr says, in one line, what can't be simulated."""
_TIMES = ("wait_median_s", "wait_p95_s", "wait_longest_s", "answer_median_s")
_MOMENT = {"now": "as it is: ", "then": "as it would be: "}


def simulate(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="Settings file with the sections simulate.hosts and simulate.work.",
        ),
    ],
    *,
    add_gpu: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE=NAME:SIZE",
            help='Another GPU in a machine, or in a new one, e.g. "garage=RTX 3090:24GiB"; may be repeated.',
        ),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=PLACE",
            help="Where a model runs and nowhere else, instead of where the file pins it, e.g. coder=garage/3060; "
            "repeated for a model: any of these places.",
        ),
    ] = None,
    instead: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The same work, with all else as this file has it; the machines too, if it has any.",
        ),
    ] = None,
    log: Annotated[
        bool,
        typer.Option("--log", help="Instead of the file's work: the tasks that a running orchestrator placed last."),
    ] = False,
    lasts: Annotated[
        str | None, typer.Option(metavar="TIME", help='For how long, e.g. "8h" or "7d"; one day if not said.')
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws other arrivals of the same work.")] = 1,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Simulate a day of work, decided as the orchestrator decides, and say what a change would change. Runs nothing."""
    require_server_packages("simulate")
    if log and lasts is not None:
        raise invalid_field("lasts", "follows from the log; leave it out with --log")
    arguments = [f"--lasts={lasts or '24h'}", f"--seed={seed}"]
    arguments += [f"--add-gpu={gpu}" for gpu in add_gpu or []]
    arguments += [f"--pin={rule}" for rule in pin or []]
    arguments += [] if instead is None else [f"--instead={instead}"]
    if log:
        told = _with_tasks(file, arguments, _tasks_of(ask(address, token, lambda client: client.decisions())))
    else:
        told = _simulated(file, arguments)
    if json:
        print_json(told)
    else:
        _print(told)


def _with_tasks(file: Path, arguments: Sequence[str], tasks: Sequence[Mapping[str, Any]]) -> Any:
    """Raises NotFound where there are none."""
    if not tasks:
        raise NotFound(
            Reason.TASK_NOT_FOUND,
            "the orchestrator knows of no task that it has placed; describe the work in the file, and leave out --log",
        )
    with TemporaryDirectory(prefix="llorch-") as folder:
        log = Path(folder) / "tasks.json"
        log.write_text(json_text.dumps(tasks))
        return _simulated(file, [*arguments, f"--log={log}"])


def _tasks_of(decisions: "Sequence[decision_pb2.DecisionLog]") -> list[dict[str, Any]]:
    """Each task once, by when it came, however often it was placed; times in seconds since the first of them."""
    placed = {one.task_id: one for one in decisions if one.HasField("placed_task")}  # newest first
    came = {task_id: one.placed_task.create_time.ToMilliseconds() / 1000 for task_id, one in placed.items()}
    first = min(came.values(), default=0.0)
    return [
        {
            "at": came[task_id] - first,
            "app": one.placed_task.app,
            "model": one.model,
            "priority": one.placed_task.priority,
            "tokens_in": max(1, one.placed_task.prompt_tokens),
            "tokens_out": max(1, one.placed_task.output_tokens),
        }
        for task_id, one in placed.items()
    ]


def _simulated(file: Path, arguments: Sequence[str]) -> Any:
    """The orchestrator's package simulates itself: this one knows nothing of what it decides."""
    command = [sys.executable, "-m", "orchestratord.simulate", *arguments, "--", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | with_parent())
    if done.returncode == _REFUSED:
        raise InvalidArgument(Reason.INVALID_FIELD, done.stderr.strip())
    if done.returncode:
        raise Internal(Reason.INTERNAL, f"the simulation failed, with code {done.returncode}:\n{done.stderr.strip()}")
    return json_text.loads(done.stdout)


def _print(told: Mapping[str, Any]) -> None:
    now, then = told["now"], told.get("then", told["now"])
    changed = ", as it is → as it would be" if "then" in told else ""
    print_text(f"{counted(told['tasks'], 'task')} in {_long(told['lasts_s'])}{changed}.")
    print_text("WAIT is until a task starts, ANSWER until its last token, in seconds.\n")
    print_table(
        ("APP", ">TASKS", ">WAIT", ">95 %", ">LONGEST", ">ANSWER", ">MISSED"),
        [_app_row(name, now["apps"][name], then["apps"][name]) for name in now["apps"]],
    )
    print_text("")
    print_table(("CARD", "GPU", ">BUSY", ">MEMORY", "WHAT RAN"), [_card_row(*cards) for cards in _cards(now, then)])
    counts = (("loads", "loads"), ("evictions", "evictions"), ("gave_way", "runs that gave way"))
    print_text("\n" + ", ".join(f"{words}: {_both(now[key], then[key], str)}" for key, words in counts))
    for name in ("now", "then"):
        for problem in told.get(name, {}).get("problems", [])[:_MOST_PROBLEMS]:
            print_text(f"{_MOMENT[name] if changed else ''}{problem['count']} × {problem['message']}")


def _app_row(name: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> tuple[str, ...]:
    times = (_both(now[key], then[key], _seconds) for key in _TIMES)
    return name or "(no app)", str(now["tasks"]), *times, _both(_missed(now), _missed(then), str)


def _missed(waits: Mapping[str, Any]) -> int:
    return int(waits["tasks"] - waits["answered"])


def _cards(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """By place; None where a card is not there."""
    before, after = ({card["place"]: card for card in one["cards"]} for one in (now, then))
    return [(before.get(place), after.get(place)) for place in before | after]


def _card_row(now: Mapping[str, Any] | None, then: Mapping[str, Any] | None) -> tuple[str, ...]:
    card = now or then or {}
    shares = (_both(now and now[key], then and then[key], _percent) for key in ("busy", "held"))
    return card["place"], card["name"], *shares, _both(now and now["models"], then and then["models"], _names)


def _both(now: Any, then: Any, show: Callable[[Any], str]) -> str:
    """One figure where nothing changes; a dash where there is none."""
    shown = ["-" if one is None else show(one) for one in (now, then)]
    return shown[0] if shown[0] == shown[1] else _ARROW.join(shown)


def _seconds(amount: float) -> str:
    return f"{amount:.1f}" if amount < 100 else f"{amount:.0f}"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _names(models: Sequence[str]) -> str:
    return ", ".join(models) or "-"


def _long(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"
