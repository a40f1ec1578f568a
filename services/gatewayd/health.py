"""`/healthz`: this process is up. `/readyz`: the orchestrator behind it is serving."""

import asyncio

from gatewayd.exchange import Exchange
from gatewayd.json_codec import encode_json
from gatewayd.route_table import MethodNotAllowed
from gatewayd.transcode import JSON
from gatewayd.upstream import Upstream

_METHODS = ("GET", "HEAD")


class Health:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._asked: asyncio.Task[None] | None = None

    async def answer_alive(self, exchange: Exchange) -> None:
        _refuse_other_methods(exchange)
        exchange.answer(200, JSON, encode_json({"status": "ok"}))

    async def answer_ready(self, exchange: Exchange) -> None:
        """Raises what keeps the orchestrator from serving, which is answered like every error."""
        _refuse_other_methods(exchange)
        await asyncio.shield(self._probe())
        exchange.answer(200, JSON, encode_json({"status": "ready"}))

    def _probe(self) -> "asyncio.Task[None]":
        """One question for all who ask meanwhile: no token is asked for here."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._upstream.check_health(), name="ask whether the orchestrator serves")
            self._asked.add_done_callback(_take_notice)
        return self._asked


def _take_notice(asked: "asyncio.Task[None]") -> None:
    """Its error is told to the requests that wait for it, if any are left."""
    if not asked.cancelled():
        asked.exception()


def _refuse_other_methods(exchange: Exchange) -> None:
    if exchange.method not in _METHODS:
        raise MethodNotAllowed(exchange.method, exchange.raw_path, _METHODS)
