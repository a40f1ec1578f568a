"""`llorch logs`: which worker is meant, and what is shown of its log."""

import asyncio
import shlex
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import fleet_service_pb2, worker_pb2
from llorch.cli.worker_names import KnownWorker, find_worker, short_ids
from llorch.errors import FailedPrecondition, NotFound
from llorch.sdk.async_client import AsyncClient
from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]

LINE = '{"event": "ready", "level": "info", "timestamp": "2026-01-01T10:00:00Z", "service": "worker-orcd", "port": 7}'
CODER = KnownWorker("worker-06gvtsg3aaaaaabbbb", "coder", "on garage/RTX 3090")
SECOND = KnownWorker("worker-06gvtsg3aaaaaacccc", "coder", "on attic/RTX 3060")
TALKER = KnownWorker("worker-06gvtsg3bbbbbbbbbb", "talker", "on garage/RTX 3090")


async def test_a_model_s_worker_is_found_and_its_lines_are_passed_on(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.log_lines = [LINE, "Segmentation fault"]

    result = await llorch("logs", "smollm2", "-n", "7", "-f")

    assert (result.code, result.out) == (0, f"{LINE}\nSegmentation fault\n")
    (asked,) = fake.logs_seen
    assert (asked.worker_id, asked.tail_lines, asked.follow) == ("worker-1", 7, True)


async def test_on_a_terminal_lines_are_readable_and_can_not_steer_it(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.log_lines = [LINE, "\x1b[2Jgone"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    result = await llorch("logs", "smollm2")

    assert result.out == "2026-01-01T10:00:00Z info ready port=7\n[2Jgone\n"


async def test_a_load_that_failed_is_found_by_its_model(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.state.load_failures.add(model="coder", node_id="garage", worker_id="worker-9")

    assert (await llorch("logs", "coder")).code == 0
    assert fake.logs_seen[0].worker_id == "worker-9"


async def test_a_worker_that_has_ended_is_asked_for_by_its_whole_id(llorch: Llorch, fake: FakeOrchestrator) -> None:
    assert (await llorch("logs", "worker-long-gone")).code == 0
    assert fake.logs_seen[0].worker_id == "worker-long-gone"


async def test_an_alias_means_its_model(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known_by_alias(_: AsyncClient, name: str) -> Any:
        assert name == "smol"
        return fake.models[0]

    monkeypatch.setattr(AsyncClient, "model", known_by_alias)
    assert (await llorch("logs", "smol")).code == 0
    assert fake.logs_seen[0].worker_id == "worker-1"


async def test_a_name_that_fits_nothing_is_refused_with_the_nearest(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("logs", "smollm")

    assert (result.code, fake.logs_seen) == (1, [])
    assert result.err == "llorch: no worker is called smollm; did you mean smollm2?\n"


async def test_a_model_with_several_workers_is_refused_with_the_list(llorch: Llorch, fake: FakeOrchestrator) -> None:
    another = worker_pb2.Worker(
        spec=worker_pb2.WorkerSpec(worker_id="worker-2", model="smollm2", device_ids=["sim-0"]), node_id="garage"
    )
    fake.state.workers.append(another)

    result = await llorch("logs", "smollm2")

    assert result.code == 1
    assert result.err.splitlines()[1:] == [
        "  rker-1  smollm2 on garage/AMD Ryzen 9 7950X 16-Core Processor",
        "  rker-2  smollm2 on garage/RTX 3090",
    ]


async def test_a_reader_who_has_seen_enough_hears_no_complaint(address: str, fake: FakeOrchestrator) -> None:
    fake.log_lines = ["a line that is longer than nothing"] * 5000
    llorch = f"{shlex.quote(sys.executable)} -m llorch logs smollm2 -n 5000 --address {address}"

    asked = await asyncio.create_subprocess_exec("bash", "-c", f"{llorch} | head -1", stdout=PIPE, stderr=PIPE)
    out, err = await asked.communicate()

    assert (out, err) == (b"a line that is longer than nothing\n", b"")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (CODER.worker_id, CODER),
        ("aabbbb", CODER),
        ("bbbbbb", TALKER),
        ("worker-06gvtsg3b", TALKER),
        ("talker", TALKER),
    ],
)
def test_a_worker_is_known_by_its_id_its_beginning_its_end_or_its_model(name: str, found: KnownWorker) -> None:
    assert find_worker(name, [CODER, SECOND, TALKER]) == found.worker_id


@pytest.mark.parametrize("name", ["worker-06gvtsg3a", "coder"])
def test_what_fits_several_is_refused(name: str) -> None:
    with pytest.raises(FailedPrecondition, match="say which one"):
        find_worker(name, [CODER, SECOND, TALKER])


@pytest.mark.parametrize("name", ["bbbb", "", "unknown"])
def test_a_name_that_fits_no_worker_is_refused(name: str) -> None:
    with pytest.raises(NotFound, match="llorch ps"):
        find_worker(name, [CODER, SECOND])


def test_ids_are_shortened_to_what_tells_them_apart() -> None:
    assert short_ids([CODER.worker_id, SECOND.worker_id]) == {CODER.worker_id: "aabbbb", SECOND.worker_id: "aacccc"}
    assert short_ids(["worker-1aaaaaa", "worker-2aaaaaa"]) == {
        "worker-1aaaaaa": "1aaaaaa",
        "worker-2aaaaaa": "2aaaaaa",
    }
    assert short_ids([]) == {}
    assert short_ids(["w-1"]) == {"w-1": "w-1"}


def test_a_state_without_anything_knows_no_worker() -> None:
    from llorch.cli.worker_names import known_workers

    assert known_workers(fleet_service_pb2.State()) == []
