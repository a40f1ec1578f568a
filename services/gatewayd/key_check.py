"""Asks the orchestrator about the key of an app before anything else is done for its client."""

from collections import OrderedDict

from gatewayd.exchange import Exchange
from gatewayd.upstream import Upstream
from llama_orch.v2 import meta_service_pb2
from llorch.auth import AUTHORIZATION, key_hash
from llorch.clock import Clock
from llorch.errors import Reason, ResourceExhausted, Unavailable, Unimplemented
from llorch.rpc.client import Metadata

_GET_IDENTITY = meta_service_pb2.DESCRIPTOR.services_by_name["MetaService"].methods_by_name["GetIdentity"]

_KNOWN_FOR_S = 60.0
"""The orchestrator still checks the key with each call; here it only earns that a body is read."""

_KNOWN_KEYS = 1024
_ASKED_AT_ONCE = 64
_RETRY_MS = 1000
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class KeyCheck:
    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._known: OrderedDict[str, float] = OrderedDict()
        self._asking = 0

    async def ask(self, exchange: Exchange, metadata: Metadata) -> None:
        """Raises Unauthenticated for a key that no app has."""
        key = key_hash(dict(metadata)[AUTHORIZATION])
        if self._known.get(key, 0.0) > self._clock.monotonic():
            return
        if self._asking >= _ASKED_AT_ONCE:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                f"this gateway asks about {_ASKED_AT_ONCE} keys already; try again in a moment",
                retry_after_ms=_RETRY_MS,
            )
        self._asking += 1
        try:
            await self._upstream.call(_GET_IDENTITY, meta_service_pb2.GetIdentityRequest(), metadata)
        except Unimplemented:
            # An orchestrator of the release before: it still checks the key with the call itself.
            return
        except Unavailable:
            if exchange.method not in _WITHOUT_BODY:
                raise
            # Nothing is read for it, and the call itself tells its reader what to do.
            return
        finally:
            self._asking -= 1
        self._remember(key)

    def _remember(self, key: str) -> None:
        self._known[key] = self._clock.monotonic() + _KNOWN_FOR_S
        self._known.move_to_end(key)
        if len(self._known) > _KNOWN_KEYS:
            self._known.popitem(last=False)
