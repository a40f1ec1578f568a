"""`llorch up`: a whole system on this machine, until Ctrl-C."""

import os
import time
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli import exit_codes
from llorch.cli.example_model import ExampleModel, find_example
from llorch.cli.naming import device_marks
from llorch.cli.output import gib, note
from llorch.cli.server_packages import require_server_packages
from llorch.cli.wrapping import in_lines
from llorch.engines import EngineName

if TYPE_CHECKING:
    from llama_orch.v2 import fleet_service_pb2
    from llorch.system.daemon import DaemonFailed
    from llorch.system.local_system import LocalSystem
    from llorch.system.options import SystemOptions


_VARIABLE = "LLORCH_API_TOKEN"


def up(
    *,
    cpu: Annotated[bool, typer.Option("--cpu", help="Models may run on the CPU of this machine.")] = False,
    simulate_gpu: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:SIZE", help='An imaginary GPU, e.g. "RTX 3090:24GiB"; may be repeated.'),
    ] = None,
    simulated_engine: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(EngineName),
            help="What answers behind imaginary GPUs: made-up text, or a model on the CPU (needs --cpu).",
        ),
    ] = None,
    sim: Annotated[str | None, typer.Option(metavar="JSON", help="Parameters of the simulated engine.")] = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where the HTTP API listens; else 127.0.0.1:8080."),
    ] = None,
    grpc: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the gRPC API listens; else 127.0.0.1:8090.")
    ] = None,
    pool_manager: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where the pool manager listens; else 127.0.0.1:9200."),
    ] = None,
    any_ports: Annotated[bool, typer.Option("--any-ports", help="Take free ports wherever none is given.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for logs and records; else ~/.local/state/llama-orch.", show_default=False),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML) for all daemons.")] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=_VARIABLE,
            show_envvar=False,
            help="Bearer token that every client has to show; this user's on this machine find it. Better in "
            "LLORCH_API_TOKEN.",
        ),
    ] = None,
) -> None:
    """Run a whole system on this machine: orchestrator, pool manager, gateway. Ctrl-C ends it."""
    require_server_packages("up")
    from llorch.system.options import ANY_PORT, CpuUse, SystemOptions, default_data_dir

    otherwise = ANY_PORT if any_ports else None
    # An empty variable is none to typer. The daemons refuse an empty token: its owner means to have one.
    given = token if token is not None else os.environ.get(_VARIABLE)
    options = SystemOptions(
        data_dir=(data_dir or default_data_dir()).expanduser().absolute(),
        cpu=CpuUse.ALLOWED if cpu else CpuUse.NEVER,
        simulate_gpu=tuple(simulate_gpu or ()),
        simulated_engine=simulated_engine,
        sim=sim,
        http=http or otherwise,
        grpc=grpc or otherwise,
        pool_manager=pool_manager or otherwise,
        config=config.expanduser().absolute() if config else None,
        token=given,
        token_from=_VARIABLE if given == os.environ.get(_VARIABLE) else "--token",
    )
    raise typer.Exit(_Run(options).code())


class _Run:
    """One run of the system, and the lines that tell the user about it."""

    def __init__(self, options: "SystemOptions") -> None:
        self._options = options
        self._begin = time.monotonic()
        self._ready = False

    def code(self) -> int:
        """Runs until the end, and says how the process should exit."""
        from llorch.system.daemon import DaemonFailed
        from llorch.system.lifetime import with_system

        try:
            failure = with_system(self._options, self._report, self._use)
        except DaemonFailed as error:
            failure = error
        except KeyboardInterrupt:
            self._report("", "all processes have ended")
            # Once it is up, Ctrl-C is the normal way to end it.
            return exit_codes.DONE if self._ready else exit_codes.INTERRUPTED
        self._say_failure(failure)
        return exit_codes.USAGE if self._is_refusal(failure) else exit_codes.FAILED

    async def _use(self, system: "LocalSystem", state: "fleet_service_pb2.State") -> "DaemonFailed":
        from llorch.sdk.async_client import AsyncClient

        async with AsyncClient(system.grpc_address, system.grpc_token) as client:
            models = await client.models()
            example = await find_example(client, models)
        self._ready = True
        _say_ready(system, state, [(model.spec.name, model.provenance) for model in models], example)
        return await system.wait_failed()

    def _report(self, who: str, what: str) -> None:
        """Where the user has closed the terminal this can't be written, and the system has to end all the same."""
        with suppress(OSError):
            typer.echo(f"{time.monotonic() - self._begin:6.1f} s  {who:14} {what}")

    def _say_failure(self, failure: "DaemonFailed") -> None:
        if not self._is_refusal(failure):
            for line in failure.last_lines:
                note(f"  {failure.name}: {line}")
            note(f"The whole log: {failure.log_path}")
        note(in_lines(f"llorch: {failure.message}"))
        if self._is_refusal(failure):
            note("\n`llorch doctor` looks at all that a start needs.")

    def _is_refusal(self, failure: "DaemonFailed") -> bool:
        """Whether the daemon's message at its start already tells the user what to change; its log has no more then."""
        from llorch.run_daemon import EXIT_NO_DEVICE, EXIT_SETTINGS

        return not self._ready and failure.exit_code in (EXIT_NO_DEVICE, EXIT_SETTINGS)


def _say_ready(
    system: "LocalSystem", state: "fleet_service_pb2.State", models: list[tuple[str, str]], example: ExampleModel
) -> None:
    lines = ["", f"  HTTP     {system.http_url}", f"  gRPC     {system.grpc_address}"]
    if system.grpc_token_file is not None:
        lines.append(f"  Token    `llorch` and the SDK find it in {system.grpc_token_file}")
    for ledger in state.devices:
        marks = "".join(f" [{mark}]" for mark in device_marks(ledger))
        lines.append(f"  Device   {ledger.device.name}, {gib(ledger.device.memory_total_mib)} GiB{marks}")
    for name, provenance in models:
        why = f": can't be loaded: {example.problems[name]}" if name in example.problems else ""
        lines.append(f"  Model    {name}" + (f" ({provenance})" if provenance else "") + why)
    lines += [
        "",
        "Try in another terminal:",
        *_hints(system, example.name),
        "",
        "Ctrl-C ends everything.",
    ]
    typer.echo("\n".join(lines))


def _hints(system: "LocalSystem", model: str) -> list[str]:
    """`model` is one that can answer, empty if there is none."""
    from llorch.sdk.connection import DEFAULT_ADDRESS

    to_here = "" if system.grpc_address == DEFAULT_ADDRESS else f" --address {system.grpc_address}"
    if not model:
        return [f"  llorch models add{to_here} NAME /path/to/model.gguf", f"  llorch gpus{to_here}"]
    return [
        f'  llorch run{to_here} {model} "Name three colours."',
        f"  llorch gpus{to_here}",
        *_curl(system),
        f"""    -d '{{"model": "{model}", "generate": {{"prompt": "Once upon a time"}}}}'""",
    ]


def _curl(system: "LocalSystem") -> list[str]:
    """The token reaches curl by a pipe: every user can read a command line."""
    url = f"{system.http_url}/v2/generate"
    if system.http_token is None:
        return [f"  curl -N {url} -H 'Content-Type: application/json' \\"]
    header = (
        f"sed 's/^/Authorization: Bearer /' {quote(str(system.http_token_file))}"
        if system.http_token_file is not None
        else f"""printf 'Authorization: Bearer %s' "${_VARIABLE}\""""
    )
    return [f"  {header} |", f"    curl -N {url} -H @- -H 'Content-Type: application/json' \\"]
