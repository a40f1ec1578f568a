"""Asks the orchestrator about the key of an app before anything else is done for its client."""

from collections import OrderedDict

from gatewayd.exchange import Exchange
from gatewayd.upstream import Upstream
from llama_orch.v2 import meta_service_pb2
from llorch.auth import AUTHORIZATION, key_hash
from llorch.clock import Clock
from llorch.errors import DeadlineExceeded, Unavailable, Unimplemented
from llorch.rpc.client import Metadata
from llorch.rpc.few_at_once import FewAtOnce

_GET_IDENTITY = meta_service_pb2.DESCRIPTOR.services_by_name["MetaService"].methods_by_name["GetIdentity"]

_KNOWN_FOR_S = 60.0
"""After its last use. The orchestrator still checks the key with each call; here it only earns that a body is read."""

_KNOWN_KEYS = 1024
_ASKED_AT_ONCE = 16
_WAIT_S = 5.0
_ANSWERED_WITHIN_S = 5.0
_TOO_MANY = "this gateway has more keys to ask about than the orchestrator answers; try again in a moment"
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class KeyCheck:
    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._known: OrderedDict[str, float] = OrderedDict()
        # Made-up keys are answered in 1 ms each, so that no app is kept out by them.
        self._asking = FewAtOnce(_ASKED_AT_ONCE, _TOO_MANY, wait_s=_WAIT_S)

    async def ask(self, exchange: Exchange, metadata: Metadata) -> None:
        """Raises Unauthenticated for a key that no app has."""
        key = key_hash(dict(metadata)[AUTHORIZATION])
        if self._known.get(key, 0.0) > self._clock.monotonic():
            self._remember(key)
            return
        try:
            async with self._asking.place():
                await self._upstream.call(
                    _GET_IDENTITY, meta_service_pb2.GetIdentityRequest(), metadata, timeout_s=_ANSWERED_WITHIN_S
                )
        except Unimplemented:
            # An orchestrator of the release before: it still checks the key with the call itself.
            return
        except (Unavailable, DeadlineExceeded):
            if exchange.method not in _WITHOUT_BODY:
                raise
            # Nothing is read for it, and the call itself tells its reader what to do.
            return
        self._remember(key)

    def forget(self, metadata: Metadata) -> None:
        """The orchestrator does not know the key any more."""
        self._known.pop(key_hash(dict(metadata)[AUTHORIZATION]), None)

    def _remember(self, key: str) -> None:
        self._known[key] = self._clock.monotonic() + _KNOWN_FOR_S
        self._known.move_to_end(key)
        if len(self._known) > _KNOWN_KEYS:
            self._known.popitem(last=False)
