"""`llorch doctor`: whether this machine can run models, and what to do where it can't."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli import exit_codes
from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, note, print_json, print_table
from llorch.cli.server_packages import require_server_packages

if TYPE_CHECKING:
    from llorch.system.host_check import Finding
    from llorch.system.plan import DaemonPlan

_HTTP_PORT = "8080"
_HTTP = f"127.0.0.1:{_HTTP_PORT}"
_PATIENCE_S = 2.0


def doctor(
    *,
    cpu: Annotated[bool, typer.Option("--cpu", help="Models may run on the CPU of this machine.")] = False,
    brain: Annotated[
        bool, typer.Option("--brain", help="No models are to run here. Assumed where an orchestrator runs.")
    ] = False,
    simulate_gpu: Annotated[
        list[str] | None, typer.Option(metavar="NAME:SIZE", help="As for `llorch up`; may be repeated.")
    ] = None,
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens, or will.")] = _HTTP,
    pool_manager: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the pool manager listens, or will.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="As for `llorch up`.", show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML) for all daemons.")] = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Look at this machine as a start would, and say what is wrong and how to mend it. Changes nothing."""
    require_server_packages("doctor")
    from llorch.sdk.connection import find_connection
    from llorch.system.host_check import check_host, check_settings, without_models
    from llorch.system.listener_check import check_gateway, check_orchestrator

    gateway = find_connection(http, token, port=_HTTP_PORT)
    host = check_host(_plan(cpu=cpu, cards=simulate_gpu or [], bind=pool_manager, data_dir=data_dir, config=config))
    orchestrator = ask(address, token, check_orchestrator, timeout_s=_PATIENCE_S)
    if brain or orchestrator.answers_here:
        host = without_models(host)
    others = [finding for plan in _other_plans(config) for finding in check_settings(plan)]
    host = _once([*host, *others])
    findings = [*host, *orchestrator.findings, check_gateway(gateway.address, gateway.token)]
    if json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    if any(finding.level == "failed" for finding in findings):
        raise typer.Exit(exit_codes.FAILED)


def _once(findings: "Sequence[Finding]") -> "list[Finding]":
    """What is wrong with the file as a whole is found by each daemon, and one may know more of it than the others."""
    texts = {(finding.check, finding.found) for finding in findings}

    def is_in_another(one: "Finding") -> bool:
        return any(check == one.check and text != one.found and text.startswith(one.found) for check, text in texts)

    return [finding for finding in dict.fromkeys(findings) if not is_in_another(finding)]


def _plan(
    *, cpu: bool, cards: Sequence[str], bind: str | None, data_dir: Path | None, config: Path | None
) -> "DaemonPlan":
    """Options that were not given have the value of the settings file, or the pool manager's default."""
    from llorch.system.plan import POOL_MANAGER, DaemonPlan

    arguments = ["--allow-cpu"] if cpu else []
    for card in cards:
        arguments += ["--simulate-gpu", card]
    if bind is not None:
        arguments += ["--bind", bind]
    if data_dir is not None:
        arguments += ["--data-dir", str(data_dir.expanduser().absolute() / POOL_MANAGER)]
    arguments += _file(config)
    return DaemonPlan(POOL_MANAGER, "pool_manager", tuple(arguments), "--pool-manager")


def _other_plans(config: Path | None) -> "tuple[DaemonPlan, ...]":
    from llorch.system.plan import DaemonPlan

    return (
        DaemonPlan("orchestratord", "orchestrator", _file(config), "--grpc"),
        DaemonPlan("gatewayd", "gateway", _file(config), "--http"),
    )


def _file(config: Path | None) -> tuple[str, ...]:
    return () if config is None else ("--config", str(config.expanduser().absolute()))


def _print(findings: "Sequence[Finding]") -> None:
    """The remedy stands below what it mends, where 80 columns have room for it."""
    rows = []
    for finding in findings:
        level = finding.level.upper() if finding.level == "failed" else finding.level
        rows.append((finding.check, level, finding.found))
        if finding.fix:
            rows.append(("", "", f"-> {finding.fix}"))
    print_table(("CHECK", "STATE", "FOUND"), rows)
    note(_summary(findings))


def _summary(findings: "Sequence[Finding]") -> str:
    failed = sum(finding.level == "failed" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if failed:
        return f"{failed} to mend before models run as they should."
    if warnings:
        return f"Models run; {warnings} {'thing' if warnings == 1 else 'things'} to look at."
    return "All is well."
