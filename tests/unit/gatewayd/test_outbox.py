import asyncio

from gatewayd.outbox import Outbox
from llorch.errors import Reason, Unavailable


async def test_what_is_ready_leaves_in_one_piece() -> None:
    outbox = Outbox()
    for frame in (b"a", b"b", b"c"):
        await outbox.put(frame)
    assert await outbox.wait_ready(1)
    assert outbox.take() == b"abc"
    assert not await outbox.wait_ready(0.01)


async def test_a_full_outbox_makes_the_reader_wait() -> None:
    outbox = Outbox()
    putting = asyncio.create_task(outbox.put(b"x" * 300_000))
    await asyncio.wait({putting}, timeout=0.01)
    assert not putting.done()
    outbox.take()
    await putting


async def test_the_end_comes_after_what_is_in_there_and_is_final() -> None:
    outbox = Outbox()
    await outbox.put(b"a")
    first = Unavailable(Reason.DRAINING, "first")
    outbox.end(first)
    outbox.end()
    await outbox.put(b"late")
    assert not outbox.is_over
    assert outbox.take() == b"a"
    assert outbox.is_over
    assert outbox.error is first
    assert await outbox.wait_ready(1)


async def test_the_end_frees_a_reader_that_waits() -> None:
    outbox = Outbox()
    putting = asyncio.create_task(outbox.put(b"x" * 300_000))
    await asyncio.wait({putting}, timeout=0.01)
    outbox.end()
    await putting
