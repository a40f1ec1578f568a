"""`llorch up` as a user runs it, with the simulated engine: what ends it, and that nothing is left."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from llorch import AsyncClient, End, Event, Started, Tokens
from llorch.errors import LlorchError
from llorch.system.restarts import MOST
from support.up import ENDS_WITHIN_S, Up, running_up, start

CARD = "RTX 3090:24GiB"


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    async with running_up(tmp_path, "--simulate-gpu", CARD, "--sim", '{"decode_tokens_per_s": 50}') as running:
        yield running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_when_idle_ends_everything_in_order(up: Up, number: signal.Signals) -> None:
    await up.ready()

    up.process.send_signal(number)

    assert await up.end() == 0
    assert "all processes have ended" in up.output


@pytest.mark.parametrize("at", ["starts", "orchestratord  answers", "pool-managerd  starts", "gatewayd       answers"])
async def test_a_signal_during_start_up_ends_everything(up: Up, at: str) -> None:
    await up.read_until(at)

    up.process.send_signal(signal.SIGINT)

    assert await up.end() == 130


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_signal_ends_everything_also_where_its_terminal_is_gone(up: Up, number: signal.Signals) -> None:
    """As where the window is closed: what it would still say can't be written."""
    await up.ready()
    family = up.family()
    assert up.process.stdout is not None
    up.process.stdout._transport.close()  # type: ignore[attr-defined]  # the reading end of what it writes to

    up.process.send_signal(number)

    async with asyncio.timeout(ENDS_WITHIN_S):
        assert await up.process.wait() == 0
    assert not [name for name, process in family.items() if process.is_running()]


async def test_a_signal_during_a_stream_ends_everything_and_the_stream(up: Up) -> None:
    async with AsyncClient(await up.ready(), reconnect_for_s=0.5) as client:
        stream = client.generate("smollm2", "Tell me a story.", max_tokens=2000)
        events: list[Event] = []
        # The task is told to have been cut short, or the connection breaks first.
        with suppress(LlorchError):
            async for event in stream:
                events.append(event)
                if isinstance(event, Tokens) and event.index == 0:
                    up.process.send_signal(signal.SIGINT)

    assert any(isinstance(event, Tokens) for event in events)
    assert not any(isinstance(event, End) and event.finish_reason != "cancelled" for event in events)
    assert await up.end() == 0


async def test_a_second_signal_ends_everything_at_once(up: Up) -> None:
    async with AsyncClient(await up.ready()) as client:
        await _first_token(client)
    stopped = up.family()["orchestratord"]
    stopped.suspend()

    up.process.send_signal(signal.SIGINT)
    await up.read_until("once more")
    up.process.send_signal(signal.SIGINT)

    async with asyncio.timeout(1.0):
        assert await up.process.wait() == 130


@pytest.mark.parametrize("name", ["orchestratord", "gatewayd"])
async def test_a_daemon_that_is_killed_is_named_and_the_rest_ends(up: Up, name: str) -> None:
    async with AsyncClient(await up.ready()) as client:
        await _first_token(client)

    up.family()[name].kill()

    assert await up.end() == 1
    assert f"{name.replace('_', '-')} ended by SIGKILL" in up.output


async def test_a_pool_manager_that_is_killed_is_started_again_and_keeps_its_worker(up: Up) -> None:
    async with AsyncClient(await up.ready()) as client:
        await _first_token(client)
        before = up.family()

        before["pool_managerd"].kill()

        await up.read_until("a new one takes its models over")
        await up.read_until("(?s)takes its models over.*pool-managerd  answers")
        await _first_token(client)
        after = up.family()
        assert after["worker_orcd"] == before["worker_orcd"]
        assert after["pool_managerd"] != before["pool_managerd"]
    up.process.send_signal(signal.SIGINT)
    assert await up.end() == 0
    assert not after["worker_orcd"].is_running()


async def test_a_pool_manager_that_dies_again_and_again_is_given_up(up: Up) -> None:
    await up.ready()
    for _ in range(MOST):
        known = up.family()["pool_managerd"]
        known.kill()
        await up.read_until("takes its models over")
        await up.read_until("(?s)takes its models over.*pool-managerd  answers")
        up.output = ""

    up.family()["pool_managerd"].kill()

    assert await up.end() == 1
    assert "pool-managerd ended by SIGKILL" in up.output


async def test_killing_it_ends_its_daemons_and_workers_too(up: Up) -> None:
    async with AsyncClient(await up.ready()) as client:
        await _first_token(client)
    family = list(up.family().values())
    assert len(family) == 4

    up.process.kill()
    await up.process.wait()

    _, left = await asyncio.to_thread(psutil.wait_procs, family, timeout=ENDS_WITHIN_S)
    assert not left


async def test_without_a_device_it_says_what_to_do(tmp_path: Path, no_gpu: None) -> None:
    up = await start(tmp_path)

    await up.read_until("llorch doctor")
    assert await up.end() == 2
    screen = up.output.splitlines()
    assert len(screen) <= 24
    assert max(map(len, screen)) <= 80
    for point in ("  Looked for:", "  Found:", "  Plugged in:", "  What to do:"):
        assert point in screen
    for way_out in ("install the NVIDIA driver", "--cpu", "--simulate-gpu", "llorch doctor"):
        assert way_out in up.output
    assert "Traceback" not in up.output
    assert "--allow-cpu" not in up.output


async def test_a_taken_port_is_named_with_its_holder_and_a_free_one(up: Up, tmp_path: Path) -> None:
    taken = await up.ready()

    second = await start(tmp_path / "second", "--simulate-gpu", CARD, "--grpc", taken)

    await second.read_until("is taken by")
    assert await second.end() == 2
    assert re.search(rf"port {taken.partition(':')[2]} is taken by .*pid \d+.* use --grpc 127", second.output)
    assert "Traceback" not in second.output


@pytest.fixture
def no_gpu() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")


async def _first_token(client: AsyncClient) -> None:
    """A worker runs after this."""
    async with client.generate("smollm2", "Hello", max_tokens=3) as stream:
        assert isinstance(await anext(stream), Started)
        async for _ in stream:
            pass
