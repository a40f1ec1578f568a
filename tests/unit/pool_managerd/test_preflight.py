"""What `llorch doctor` and the pool manager's start find wrong with a machine, and what they say to do."""

import os
import resource
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llorch.device_kind import DeviceKind
from llorch.ports import Holder
from pool_managerd.devices import choose
from pool_managerd.devices.device import Device, DeviceState, OwnUse, ThrottleReason
from pool_managerd.preflight import devices as device_checks
from pool_managerd.preflight import ports as port_checks
from pool_managerd.preflight.checks import look_at_everything, look_beside_the_start
from pool_managerd.preflight.devices import find_devices
from pool_managerd.preflight.engine import find_engine, judge, needs_engine
from pool_managerd.preflight.finding import Finding, Level
from pool_managerd.preflight.limits import find_limits
from pool_managerd.preflight.ports import find_port, find_worker_ports
from pool_managerd.preflight.storage import find_data_dir, find_disk, find_models_dir
from pool_managerd.settings import PoolManagerSettings
from support.gguf_writer import smallest_model

pytestmark = pytest.mark.req("POOL-2002")

CARD = Device(
    device_id="GPU-1",
    kind=DeviceKind.CUDA,
    index=0,
    name="RTX 3090",
    memory_total_mib=24576,
    memory_used_mib=0,
    used_by_others_mib=0,
    driver_version="535.1",
)
CPU = replace(CARD, device_id="cpu", kind=DeviceKind.CPU, name="Ryzen", driver_version="")


class NoDriver:
    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802
        raise self.NVMLError("NVML Shared Library Not Found")


def settings(tmp_path: Path, **values: Any) -> PoolManagerSettings:
    given = {"data_dir": tmp_path / "data", "bind": "127.0.0.1:0", "worker_ports": "any", "node_id": "garage"}
    return PoolManagerSettings(**{**given, **values})


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_no_device_is_told_with_what_was_found_and_every_way_out(tmp_path: Path) -> None:
    findings, devices = find_devices(settings(tmp_path), NoDriver())
    finding = only(findings)
    assert (finding.level, devices) == (Level.FAILED, ())
    assert "NVML Shared Library Not Found" in finding.found
    for way_out in ("install the NVIDIA driver", "--allow-cpu", "--simulate-gpu"):
        assert way_out in finding.fix


def test_an_nvidia_card_without_driver_is_told_although_the_cpu_may_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (choose, device_checks):
        monkeypatch.setattr(module, "cards_on_the_bus", lambda: ["a card of NVIDIA (0000:01:00.0)"])
    findings, _ = find_devices(settings(tmp_path, allow_cpu=True), NoDriver())
    assert only(findings).level is Level.WARNING
    assert "no driver answers for a card of NVIDIA (0000:01:00.0)" in only(findings).found


def test_the_cpu_that_is_allowed_and_an_imaginary_card_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_checks, "cards_on_the_bus", list)
    findings, _ = find_devices(settings(tmp_path, allow_cpu=True), NoDriver())
    assert only(findings).level is Level.OK
    findings, _ = find_devices(settings(tmp_path, simulate_gpu=["RTX 3090:24GiB"]), NoDriver())
    assert (only(findings).level, only(findings).found) == (Level.OK, "RTX 3090 (24.0 GiB, simulated)")


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"state": DeviceState.LOST}, Level.FAILED, "does not answer"),
        ({"ecc_errors": 3}, Level.WARNING, "3 uncorrected memory errors"),
        ({"throttle_reasons": (ThrottleReason.HEAT,)}, Level.WARNING, "slowed down (heat)"),
        ({"throttle_reasons": (ThrottleReason.POWER,)}, Level.WARNING, "slowed down (power)"),
        ({"throttle_reasons": (ThrottleReason.HARDWARE,)}, Level.WARNING, "slowed down (hardware)"),
    ],
)
def test_a_card_that_is_not_well_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], level: Level, words: str
) -> None:
    monkeypatch.setattr(device_checks, "open_inventory", lambda **_: Sick(replace(CARD, **change)))
    (well, complaint), _ = find_devices(settings(tmp_path))
    assert well.found == "NVIDIA driver 535.1: RTX 3090 (24.0 GiB)"
    assert complaint.level is level
    assert words in complaint.found
    assert complaint.fix


class Sick:
    def __init__(self, device: Device) -> None:
        self._device = device

    def sample(self, own: OwnUse) -> tuple[Device, ...]:
        return (self._device,)

    def close(self) -> None:
        pass


WITH_GPU = {"version": "0.3.36", "gpu_offload": True, "gpus": ["NVIDIA GeForce RTX 3090"]}


@pytest.mark.parametrize(
    ("answer", "devices", "level", "words"),
    [
        (WITH_GPU, [CARD], Level.OK, "sees 1 GPU"),
        (WITH_GPU, [CPU], Level.OK, "built for GPUs"),
        ({**WITH_GPU, "gpu_offload": False, "gpus": []}, [CPU], Level.OK, "for the CPU alone"),
        ({"missing": "llama-cpp-python can't be imported; x"}, [CPU], Level.FAILED, "can't be imported"),
        ({**WITH_GPU, "gpu_offload": False, "gpus": []}, [CARD], Level.FAILED, "without GPU support"),
        ({**WITH_GPU, "gpu_offload": False, "gpus": []}, [CARD, CPU], Level.WARNING, "without GPU support"),
        ({**WITH_GPU, "gpus": []}, [CARD], Level.FAILED, "sees 0 of 1 GPUs"),
    ],
)
def test_an_engine_is_judged_by_the_devices_that_it_is_for(
    answer: dict[str, Any], devices: list[Device], level: Level, words: str
) -> None:
    finding = judge(answer, devices)
    assert finding.level is level
    assert words in finding.found
    assert bool(finding.fix) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "dies by SIGSEGV"),
        (f"import os; os.kill(os.getpid(), {signal.SIGALRM.value})", "hangs"),
        ("import no_such_module", "does not load: ModuleNotFoundError"),
        ("print('no JSON')", "can't be asked"),
        ("pass", "can't be asked"),
    ],
)
async def test_an_engine_that_can_not_answer_is_a_finding(program: str, words: str) -> None:
    finding = await find_engine([CARD], (sys.executable, "-S", "-c", program))
    assert finding.level is Level.FAILED
    assert words in finding.found


async def test_an_engine_is_asked_with_the_very_cards_that_it_would_get() -> None:
    program = (
        "import json, os; print(json.dumps(dict(version=os.environ['CUDA_VISIBLE_DEVICES'], "
        "gpu_offload=True, gpus=['a', 'b'])))"
    )
    cards = [CARD, replace(CARD, device_id="GPU-2"), CPU]
    finding = await find_engine(cards, (sys.executable, "-S", "-c", program))
    assert finding.found == "llama-cpp-python GPU-1,GPU-2 with GPU support, sees 2 GPUs"


def test_made_up_answers_need_no_engine(tmp_path: Path) -> None:
    assert needs_engine(settings(tmp_path))
    assert not needs_engine(settings(tmp_path, simulate_gpu=["A:1GiB"]))
    assert needs_engine(settings(tmp_path, simulate_gpu=["A:1GiB"], simulated_engine="llama_cpp"))


def test_a_data_directory_that_can_be_made_is_fine_and_is_not_made(tmp_path: Path) -> None:
    finding = find_data_dir(settings(tmp_path))
    assert (finding.level, (tmp_path / "data").exists()) == (Level.OK, False)


def test_a_data_directory_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert find_data_dir(settings(tmp_path, data_dir=tmp_path / "file" / "data")).level is Level.FAILED


def test_a_data_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = find_data_dir(settings(tmp_path))
    assert finding.level is Level.FAILED
    assert "chown" in finding.fix


@pytest.mark.parametrize(
    ("free_gib", "level"), [(0.5, Level.FAILED), (5, Level.WARNING), (50, Level.OK)], ids=["full", "little", "much"]
)
def test_disk_space_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float, level: Level) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free_gib * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = find_disk(settings(tmp_path))
    assert finding.level is level
    assert f"{free_gib:.1f} GiB free" in finding.found


async def test_the_models_folder_is_judged_by_what_it_offers(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    assert (await find_models_dir(settings(tmp_path))).level is Level.OK
    missing = await find_models_dir(settings(tmp_path, models_dir=folder))
    assert (missing.level, missing.fix) == (Level.WARNING, "make or mount it, or correct models_dir")
    folder.mkdir()
    assert "has no .gguf file" in (await find_models_dir(settings(tmp_path, models_dir=folder))).found
    (folder / "coder.gguf").write_bytes(smallest_model())
    assert (await find_models_dir(settings(tmp_path, models_dir=folder))).found.startswith("1 model in")


async def test_a_models_folder_that_can_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not be read" in (await find_models_dir(settings(tmp_path, models_dir=tmp_path))).found


def test_a_port_of_a_stranger_is_told_with_a_free_one_and_that_of_a_pool_manager_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asked = settings(tmp_path, bind=f"127.0.0.1:{taken.getsockname()[1]}")
        finding = find_port(asked)
        assert finding.level is Level.FAILED
        assert f"(pid {os.getpid()})" in finding.found
        assert "use --bind 127.0.0.1:" in finding.fix

        for command in (("python", "-P", "-m", "pool_managerd"), ("python", "/opt/bin/pool-managerd", "--bind", "x")):
            monkeypatch.setattr(port_checks, "holder_of", lambda _, command=command: Holder(7, command=command))
            assert find_port(asked).level is Level.OK

        monkeypatch.setattr(port_checks, "holder_of", lambda _: None)
        assert find_port(asked).level is Level.WARNING
    assert find_port(asked).level is Level.OK


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    elsewhere = settings(tmp_path, bind="192.0.2.7:9200", worker_ports="9300-9301")
    assert find_port(elsewhere).level is Level.FAILED
    assert find_worker_ports(elsewhere).level is Level.FAILED


def test_worker_ports_that_are_taken_are_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = find_worker_ports(settings(tmp_path, worker_ports=f"{port}-{port}"))
    assert (finding.level, finding.found) == (Level.FAILED, f"0 of 1 ports free in {port}-{port}")
    assert find_worker_ports(settings(tmp_path)).level is Level.OK


def test_limits_that_are_too_low_are_told_each(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = resource.RLIM_INFINITY
    assert only(find_limits(lambda _: (unlimited, unlimited))).level is Level.OK
    findings = find_limits(lambda _: (100, 100))
    assert [finding.level for finding in findings] == [Level.WARNING] * 4
    assert "ulimit -n 1024" in findings[0].fix


async def test_everything_is_looked_at_in_one_go(tmp_path: Path) -> None:
    asked = settings(tmp_path, simulate_gpu=["RTX 3090:24GiB"])
    findings = await look_at_everything(asked)
    assert [finding.check for finding in findings] == [
        "devices",
        "data",
        "disk",
        "models",
        "port",
        "workers",
        *(finding.check for finding in find_limits()),
    ]


async def test_a_start_is_told_only_what_is_not_well(tmp_path: Path) -> None:
    found = await look_beside_the_start(settings(tmp_path, models_dir=tmp_path / "gone"), [CPU])
    assert [finding.check for finding in found if finding.check == "models"] == ["models"]
    assert all(finding.level is not Level.OK for finding in found)
