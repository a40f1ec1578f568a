"""Settings, addresses, the data directory, the journal, and the eyes on the devices."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.engines import EngineName
from llorch.errors import FailedPrecondition, InvalidArgument
from llorch.settings import SettingsError, read
from pool_managerd import advertise
from pool_managerd.advertise import advertised_host, local_address
from pool_managerd.bell import Bell
from pool_managerd.convert.devices import to_device
from pool_managerd.data_dir import open_data_dir
from pool_managerd.devices.device import Device, DeviceState, OwnUse
from pool_managerd.devices.monitor import DeviceMonitor
from pool_managerd.settings import PoolManagerSettings
from pool_managerd.workers import journal as journal_module
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord
from support.worker_host import worker_spec


def settings(*argv: str, **env: str) -> PoolManagerSettings:
    return read(PoolManagerSettings, argv, {"HOME": "/nowhere", **env})


def test_the_defaults_are_for_one_machine_and_no_cpu() -> None:
    default = settings()
    assert (default.bind, default.orchestrator) == ("127.0.0.1:9200", "127.0.0.1:8090")
    assert not default.allow_cpu
    assert not default.simulate_gpu
    assert default.node_id


def test_gpus_are_simulated_by_a_flag_that_may_be_repeated() -> None:
    given = settings("--simulate-gpu", "RTX 3090:24GiB", "--simulate-gpu", "RTX 3060:12GiB")
    assert given.simulate_gpu == ["RTX 3090:24GiB", "RTX 3060:12GiB"]


def test_the_reserve_is_given_per_device() -> None:
    assert settings("--reserve-mib", '{"sim-0": 512}').reserve_mib == {"sim-0": 512}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--simulate-gpu", "RTX 3090"), "NAME:SIZE"),
        (("--node-id", "a b"), "1 to 128 characters"),
        (("--sim", "[1]"), "JSON object"),
        (("--sim", "{"), "sim"),
        (("--worker-stop-grace-s", "0"), "greater than 0"),
        (("--simulated-engine", "vllm"), "simulated-engine.*'llama_cpp' or 'sim'"),
        (("--pools", '{"big": []}'), "names no device"),
        (("--pools", '{"a b": ["0"]}'), "1 to 128 characters"),
        (("--labels", '{"a b": "c"}'), "is no label"),
        (("--labels", '{"zone": "two\\nlines"}'), "is no label"),
    ],
)
def test_settings_that_can_not_be_right_are_named(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        settings(*argv)


def test_a_node_advertises_what_it_was_told_or_what_it_listens_on() -> None:
    assert advertised_host("10.0.0.7:9200", "10.0.0.1:8090", "") == "10.0.0.7"
    assert advertised_host("0.0.0.0:9200", "10.0.0.1:8090", "garage.lan") == "garage.lan"


def test_a_node_that_listens_everywhere_advertises_its_address_toward_the_orchestrator() -> None:
    assert advertised_host("0.0.0.0:9200", "127.0.0.1:8090", "") == "127.0.0.1"


def test_a_node_that_finds_no_way_to_the_orchestrator_asks_for_its_address() -> None:
    with pytest.raises(InvalidArgument, match="advertise_host"):
        advertised_host("0.0.0.0:9200", "no.such.host.invalid:8090", "")


def test_a_node_that_listens_to_itself_alone_is_no_use_to_an_orchestrator_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(advertise, "_way_to", lambda _: ("192.168.1.20", "192.168.1.10"))
    with pytest.raises(InvalidArgument, match="bind"):
        advertised_host("127.0.0.1:9200", "192.168.1.10:8090", "")
    assert advertised_host("127.0.0.1:9200", "192.168.1.10:8090", "tunnel.lan") == "tunnel.lan"
    monkeypatch.setattr(advertise, "_way_to", lambda _: ("192.168.1.20", "192.168.1.20"))
    assert advertised_host("127.0.0.1:9200", "192.168.1.20:8090", "") == "127.0.0.1"


def test_a_node_beside_its_orchestrator_listens_to_itself_alone() -> None:
    assert advertised_host("127.0.0.1:9200", "localhost:8090", "") == "127.0.0.1"
    assert advertised_host("127.0.0.1:9200", "no.such.host.invalid:8090", "") == "127.0.0.1"


def test_workers_report_to_this_machine() -> None:
    assert local_address("0.0.0.0:9200") == "127.0.0.1:9200"
    assert local_address("[::]:9200") == "[::1]:9200"
    assert local_address("10.0.0.7:9200") == "10.0.0.7:9200"


def test_a_data_directory_belongs_to_one_pool_manager_at_a_time(tmp_path: Path) -> None:
    with (
        open_data_dir(tmp_path) as data_dir,
        pytest.raises(FailedPrecondition, match="another pool manager"),
        open_data_dir(tmp_path),
    ):
        pass
    assert data_dir.logs.is_dir()
    assert data_dir.workers.is_dir()


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    record = WorkerRecord(
        "w-1",
        Stage.STARTED,
        worker_spec("file:/tiny.gguf"),
        access_token="a",
        ready_token="r",
        process=ProcessIdentity(7, 70, "boot"),
        address="127.0.0.1:1",
    )
    journal = Journal(tmp_path)
    journal.write(record)
    assert journal.read_all() == [record]
    assert (tmp_path / "w-1.json").stat().st_mode & 0o777 == 0o600


def test_one_record_that_can_not_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(WorkerRecord("w-1", Stage.REFUSED))
    (tmp_path / "w-2.json").write_text("{")
    (tmp_path / "w-3.json").write_text(json.dumps({"stage": "started"}))
    assert [record.worker_id for record in journal.read_all()] == ["w-1"]


def test_records_of_ended_workers_are_bounded_and_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_KEEP_ENDED", 2)
    journal = Journal(tmp_path)
    journal.write(WorkerRecord("w-0", Stage.STARTED))
    for number in range(1, 5):
        journal.write(WorkerRecord(f"w-{number}", Stage.ENDED))
    journal.forget_oldest_ended()
    assert {record.worker_id for record in journal.read_all()} == {"w-0", "w-3", "w-4"}


class ScriptedInventory:
    """Answers what the test says."""

    def __init__(self) -> None:
        self.device = Device("GPU-a", DeviceKind.CUDA, 0, "card", 1000, 0, 0)
        self.holders: list[set[int]] = []

    def open(self) -> None: ...

    def sample(self, own: OwnUse) -> Sequence[Device]:
        return (self.device,)

    def holds_memory(self, pid: int) -> bool:
        return bool(self.holders) and pid in self.holders.pop(0)

    def close(self) -> None: ...


def seen(inventory: ScriptedInventory, **changed: object) -> None:
    inventory.device = replace(inventory.device, **changed)  # type: ignore[arg-type]  # the test knows the fields


async def test_only_news_that_can_not_wait_ring_the_bell() -> None:
    inventory, bell = ScriptedInventory(), Bell()
    monitor = DeviceMonitor(inventory, bell.ring)
    await monitor.sample(OwnUse())
    assert bell.rings == 1
    seen(inventory, temperature_c=70, memory_used_mib=3, used_by_others_mib=3)
    await monitor.sample(OwnUse())
    assert bell.rings == 1
    seen(inventory, used_by_others_mib=500)
    await monitor.sample(OwnUse())
    assert bell.rings == 2
    seen(inventory, state=DeviceState.LOST)
    await monitor.sample(OwnUse())
    assert bell.rings == 3


async def test_the_reserve_of_the_owner_is_shown_by_any_name_and_not_subtracted() -> None:
    monitor = DeviceMonitor(ScriptedInventory(), lambda: None, {"card": 300, "another": 7})
    for _ in range(2):
        await monitor.sample(OwnUse())
        (device,) = monitor.devices()
        assert (device.reserve_mib, device.memory_total_mib) == (300, 1000)


async def test_a_device_is_reported_with_the_engines_that_its_node_runs_on_it() -> None:
    for offered in ((EngineName.llama_cpp,), (EngineName.sim, EngineName.llama_cpp)):
        monitor = DeviceMonitor(ScriptedInventory(), lambda: None, engines={DeviceKind.CUDA: offered})
        await monitor.sample(OwnUse())
        (device,) = monitor.devices()
        assert tuple(to_device(device).engines) == offered


@pytest.mark.req("POOL-2003")
async def test_memory_is_back_when_the_driver_says_so() -> None:
    inventory = ScriptedInventory()
    inventory.holders = [{7}, {7}, set()]
    assert await DeviceMonitor(inventory, lambda: None).memory_back(7, within_s=10)


async def test_waiting_for_memory_is_bounded() -> None:
    inventory = ScriptedInventory()
    inventory.holders = [{7}] * 5
    assert not await DeviceMonitor(inventory, lambda: None).memory_back(7, within_s=0.0)


async def test_a_bell_that_rang_between_two_looks_is_not_missed() -> None:
    bell = Bell()
    before = bell.rings
    bell.ring()
    assert await bell.wait_rung(before, within_s=0.0)
    assert not await bell.wait_rung(bell.rings, within_s=0.01)


async def test_a_bell_wakes_all_waiting_tasks() -> None:
    bell = Bell()
    waiting = [asyncio.create_task(bell.wait_rung(0, within_s=10)) for _ in range(3)]
    await asyncio.sleep(0)
    bell.ring()
    assert await asyncio.gather(*waiting) == [True, True, True]
