"""Deliveries end when their task is cancelled, whatever fails at the same moment."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
import pytest

from gatewayd import deliveries
from gatewayd.deliveries import Deliveries
from gatewayd.delivery import Delivery
from llorch.clock import SystemClock


class FailsWhenCancelled:
    """A call that brings nothing, and whose writing fails as it is cancelled."""

    def __init__(self, _method: Any) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    async def send(self, _message: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("the call broke") from None


async def test_a_failure_at_the_moment_of_a_cancel_does_not_cover_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "DuplexCall", FailsWhenCancelled)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        made = Deliveries(channel, 1, SystemClock())
        running = asyncio.create_task(made.run())
        delivery = made._delivery()
        assert isinstance(delivery, Delivery)
        delivery._tell_left(1)
        for _ in range(5):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=2)
        running.cancel()
        assert done, "it goes on although it was cancelled"
