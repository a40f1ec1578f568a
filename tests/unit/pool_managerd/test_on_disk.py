import asyncio
import threading

import pytest

from pool_managerd.models.on_disk import on_disk


async def test_work_answers_and_fails_as_it_does() -> None:
    assert await on_disk(max, 1, 2) == 2
    with pytest.raises(FileNotFoundError):
        await on_disk(open, "/not/there")


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_waits_for_the_thread(fails: bool) -> None:
    begun, may_end = threading.Event(), threading.Event()
    ended: list[bool] = []

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.append(True)
        if fails:
            raise OSError("full")

    waiting = asyncio.create_task(on_disk(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended
