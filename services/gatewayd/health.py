"""`/healthz`: this process is up. `/readyz`: the orchestrator behind it is serving."""

from gatewayd.exchange import Exchange
from gatewayd.json_codec import encode_json
from gatewayd.route_table import MethodNotAllowed
from gatewayd.transcode import JSON
from gatewayd.upstream import Upstream

_METHODS = ("GET", "HEAD")


class Health:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def answer_alive(self, exchange: Exchange) -> None:
        _refuse_other_methods(exchange)
        exchange.answer(200, JSON, encode_json({"status": "ok"}))

    async def answer_ready(self, exchange: Exchange) -> None:
        """Raises what keeps the orchestrator from serving, which is answered like every error."""
        _refuse_other_methods(exchange)
        await self._upstream.check_health()
        exchange.answer(200, JSON, encode_json({"status": "ready"}))


def _refuse_other_methods(exchange: Exchange) -> None:
    if exchange.method not in _METHODS:
        raise MethodNotAllowed(exchange.method, exchange.raw_path, _METHODS)
