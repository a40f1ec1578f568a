"""What the gateway asks the orchestrator about a key before it does anything else for its client."""

import asyncio
from typing import Any

import pytest

from gatewayd import key_check
from gatewayd.exchange import Exchange
from gatewayd.http.stream import RequestHead
from gatewayd.key_check import KeyCheck
from llorch.errors import LlorchError, Reason, Unauthenticated, Unavailable, Unimplemented
from support.manual_clock import ManualClock

METADATA = (("authorization", "Bearer llorch-key"),)


class Orchestrator:
    """Answers with `error`, if there is one, once it may."""

    def __init__(self, error: LlorchError | None = None) -> None:
        self.error = error
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def call(self, *_: object, timeout_s: float) -> None:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error


def request(method: str = "POST") -> Exchange:
    stream: Any = None
    return Exchange(RequestHead(method, "/v2/tasks", b"", {}, None), stream)


def checking(orchestrator: Orchestrator) -> tuple[KeyCheck, ManualClock]:
    upstream: Any = orchestrator
    clock = ManualClock()
    return KeyCheck(upstream, clock), clock


async def test_a_known_key_is_asked_about_again_only_after_it_was_not_used_for_a_minute() -> None:
    orchestrator = Orchestrator()
    keys, clock = checking(orchestrator)
    for _ in range(5):
        await keys.ask(request(), METADATA)
        clock.advance(50)
    assert orchestrator.asked == 1
    clock.advance(11)
    await keys.ask(request(), METADATA)
    keys.forget(METADATA)
    await keys.ask(request(), METADATA)
    assert orchestrator.asked == 3


async def test_a_key_that_no_app_has_is_refused_and_not_remembered() -> None:
    orchestrator = Orchestrator(Unauthenticated(Reason.TOKEN_INVALID, "no app has this key"))
    keys, _ = checking(orchestrator)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await keys.ask(request(), METADATA)
    assert orchestrator.asked == 2


async def test_only_a_request_with_a_body_waits_for_an_orchestrator_that_is_away() -> None:
    keys, _ = checking(Orchestrator(Unavailable(Reason.UPSTREAM_UNAVAILABLE, "away")))
    await keys.ask(request("GET"), METADATA)
    with pytest.raises(Unavailable):
        await keys.ask(request("POST"), METADATA)


async def test_an_orchestrator_of_the_release_before_checks_the_key_with_the_call_itself() -> None:
    keys, _ = checking(Orchestrator(Unimplemented(Reason.NOT_IMPLEMENTED, "not there")))
    await keys.ask(request(), METADATA)


async def test_keys_beyond_those_that_are_asked_about_wait_and_then_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_check, "_WAIT_S", 0.05)
    orchestrator = Orchestrator()
    orchestrator.may_answer.clear()
    keys, _ = checking(orchestrator)
    asked = [asyncio.create_task(keys.ask(request(), METADATA)) for _ in range(key_check._ASKED_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(LlorchError, match="more keys to ask about") as caught:
        await keys.ask(request(), METADATA)
    assert (caught.value.reason, caught.value.retry_after_ms) == (Reason.TOO_MANY_CALLS, 1000)
    orchestrator.may_answer.set()
    await asyncio.gather(*asked)
