"""The orchestrator starts anew while its nodes and workers go on."""

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

import pool_managerd.control
import pool_managerd.host_identity
from llama_orch.v2 import task_event_pb2, task_pb2, task_service_pb2, worker_pb2
from llorch.errors import InvalidArgument, Reason, Unavailable
from llorch.rpc.client import call
from orchestratord.core.facts.task import TaskState
from orchestratord.store.sqlite import open_sqlite
from support.streams import check_stream
from support.whole_system import STUCK, WholeSystem, gguf, task, wait_until, whole_system
from worker_orcd.engines.sim.tokens import sim_text

TOKENS = 200


@pytest.mark.req("ORCH-1009")
async def test_what_ran_and_what_waited_is_done_by_the_same_worker(tmp_path: Path) -> None:
    async with whole_system(tmp_path, slots=1) as system:
        tasks = [await system.submit(task(max_tokens=TOKENS)) for _ in range(3)]
        shown: list[task_event_pb2.TaskEvent] = []
        reading = asyncio.create_task(system.read(tasks[0], shown))
        await wait_until(lambda: _true(any(event.HasField("tokens") for event in shown)))
        (before,) = (await system.state()).workers
        assert system.lives is not None
        await system.lives.begin_next(system.address)
        with pytest.raises(Unavailable):
            await reading
        cut = [event for event in shown if event.HasField("tokens")][-1]
        read = sum(event.tokens.count for event in shown)
        rest = await system.stream_when_found(tasks[0], after=cut.cursor)
        assert check_stream(rest, first_index=read) == sim_text(7, 0, TOKENS)[len(sim_text(7, 0, read)) :]
        assert [event.placed.attempt for event in rest if event.HasField("placed")] == [1], "it went on meanwhile"
        for task_id in tasks:
            assert check_stream(await system.stream(task_id)) == sim_text(7, 0, TOKENS)
            assert (await system.task(task_id)).attempts == 1
        assert await _serves(system, before)
        assert len((await system.state()).workers) == 1


async def test_a_cursor_of_output_that_is_nowhere_any_more_is_told_so(tmp_path: Path) -> None:
    async with whole_system(tmp_path, slots=1) as system:
        task_id = await system.submit(task(max_tokens=TOKENS))
        await wait_until(lambda: _has_output(system, task_id))
        (worker,) = (await system.state()).workers
        assert system.lives is not None
        await system.lives.end()
        os.kill(worker.pid, signal.SIGKILL)
        await system.lives.begin(system.address)
        with pytest.raises(InvalidArgument) as reset:
            await system.stream_when_found(task_id, after="1.1")
        assert reset.value.reason is Reason.STREAM_RESET
        types = await _as_a_browser_reads(system.http, f"/v2/tasks/{task_id}/events?after=1.1")
        assert [it for it in types if it in ("reset", "started", "error", "end")] == ["reset", "started", "end"]


async def test_a_deadline_that_passes_while_no_orchestrator_is_there_ends_the_task_with_what_there_is(
    tmp_path: Path,
) -> None:
    async with whole_system(tmp_path, slots=1) as system:
        task_id = await system.submit(task(max_tokens=4_000, deadline_ms=2_500))
        await wait_until(lambda: _has_output(system, task_id))
        assert system.lives is not None
        await system.lives.end()
        await asyncio.sleep(2.5)  # the deadline passes
        await system.lives.begin(system.address)
        events = await system.stream_when_found(task_id)
        text = check_stream(events)
        assert text
        assert sim_text(7, 0, 4_000).startswith(text)
        assert events[-1].end.choices[0].finish_reason == task_event_pb2.FINISH_REASON_DEADLINE
        assert (await system.task(task_id)).state == task_pb2.TASK_STATE_EXPIRED


@pytest.mark.req("ORCH-1009")
@pytest.mark.parametrize("drain_s", [0, 2])
async def test_a_task_that_was_cancelled_does_not_run_again(tmp_path: Path, drain_s: float) -> None:
    async with whole_system(tmp_path, slots=1) as system:
        assert system.lives is not None
        system.lives.drain_s = drain_s
        await system.lives.begin_next(system.address)
        task_id = await system.submit(task(max_tokens=4_000))
        await wait_until(lambda: _has_output(system, task_id))
        await call(system.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=5)
        crashed = shutil.copytree(tmp_path / "orchestrator", tmp_path / "crashed")  # as a SIGKILL now would leave it
        store = open_sqlite(crashed)
        await store.begin_incarnation()
        (kept,) = await store.tasks()
        await store.close()
        assert kept.ending is not None
        assert kept.ending.state is TaskState.CANCELLED
        await system.lives.begin_next(system.address)
        assert (await system.task(task_id)).state == task_pb2.TASK_STATE_CANCELLED
        told = await system.stream(task_id)
        assert told[-1].end.tokens_out == sum(event.tokens.count for event in told if event.HasField("tokens"))


async def test_a_cancelled_task_whose_worker_is_silent_has_its_whole_output_after_a_restart(tmp_path: Path) -> None:
    async with whole_system(tmp_path, slots=1) as system:
        task_id = await system.submit(task(f"{STUCK} hello", max_tokens=TOKENS))
        await wait_until(lambda: _has_output(system, task_id))
        await call(system.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=5)
        assert system.lives is not None
        await system.lives.begin_next(system.address)
        told = await system.stream(task_id, after="1.1")
        assert told[-1].WhichOneof("event") == "end"


@pytest.mark.req("ORCH-1009")
async def test_a_node_whose_disk_is_full_serves_the_next_orchestrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_path: Path, _content: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pool_managerd.host_identity, "write_durably", full)
    monkeypatch.setattr(pool_managerd.control, "write_durably", full)
    async with whole_system(tmp_path) as system:
        assert (await system.generate(task()))[-1].HasField("end")
        (before,) = (await system.state()).workers
        assert system.lives is not None
        await system.lives.begin_next(system.address)
        await wait_until(lambda: _serves(system, before))
        assert (await system.generate(task()))[-1].HasField("end")
        await system.register("new", f"file:{gguf(tmp_path, 'new.gguf')}")
        assert (await system.generate(task(model="new")))[-1].HasField("end")
        assert [node.trouble for node in (await system.state()).nodes] == [""]
    told = capsys.readouterr()
    assert "epoch_not_kept" in told.out + told.err


async def _as_a_browser_reads(http: httpx.AsyncClient, url: str) -> list[str]:
    """The types of the events, until a task's end: an EventSource asks the same URL again, with the id that it was told
    last.
    """
    types, headers = list[str](), dict[str, str]()
    async with asyncio.timeout(20):
        while "end" not in types:
            answer = await http.get(url, headers=headers)
            assert answer.status_code == 200, "it would never ask again"
            for line in answer.text.splitlines():
                if line.startswith("event: "):
                    types.append(line.removeprefix("event: "))
                elif line.startswith("id: "):
                    headers = {"Last-Event-ID": line.removeprefix("id: ")}
    return types


async def _true(it: bool) -> bool:
    return it


async def _has_output(system: WholeSystem, task_id: str) -> bool:
    return bool((await system.task(task_id)).log_entries)


async def _serves(system: WholeSystem, worker: worker_pb2.Worker) -> bool:
    workers = {known.spec.worker_id: known.state for known in (await system.state()).workers}
    return workers.get(worker.spec.worker_id) == worker_pb2.WORKER_STATE_READY
