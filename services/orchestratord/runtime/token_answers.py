"""Questions about the tokens of a model go to the workers and nodes that can tell, one by one until one answers."""

import asyncio
from collections.abc import Sequence

from llama_orch.v2 import tokens_pb2
from llorch.errors import Internal, InvalidArgument, LlorchError, Reason, Unauthenticated, Unavailable, Unimplemented
from llorch.logs import get_logger
from orchestratord.core.facts.fleet import Fleet
from orchestratord.core.facts.model import Model
from orchestratord.core.placement.pulls import not_pulled
from orchestratord.core.placement.token_sources import TokenSource
from orchestratord.runtime.effect_runner import EffectRunner

WITHIN_S = 40.0
"""All of those that are asked, together."""
_ONE_WITHIN_S = 28.0
"""A turn and an answer, as a worker or a node takes them for the longest texts."""

_log = get_logger("orchestratord")


class TokenAnswers:
    """What is asked is never logged."""

    def __init__(self, fleet: Fleet, effects: EffectRunner) -> None:
        self._fleet = fleet
        self._effects = effects

    async def ask(
        self, model: Model, sources: Sequence[TokenSource], question: tokens_pb2.TokenQuestion
    ) -> tokens_pb2.TokenAnswer:
        """Raises what is wrong with the question, or why none of the sources answers."""
        now = asyncio.get_running_loop().time
        ends_at = now() + WITHIN_S
        failures: list[LlorchError] = []
        for source in sources:
            if (left_s := ends_at - now()) <= 0:
                break
            try:
                return await self._ask(model, source, question, left_s)
            except InvalidArgument:
                raise
            except LlorchError as error:
                _log.info("tokens_not_told", node_id=source.node_id, worker_id=source.worker_id, reason=error.reason)
                failures.append(_as_told(source, error))
        raise _most_telling(failures) or not_pulled(self._fleet, model)

    async def _ask(
        self, model: Model, source: TokenSource, question: tokens_pb2.TokenQuestion, left_s: float
    ) -> tokens_pb2.TokenAnswer:
        """Raises Unavailable for one that has gone since it was chosen."""
        if source.worker_id:
            return await self._effects.link(source.worker_id).read_tokens(question, min(left_s, _ONE_WITHIN_S))
        if source.node_id not in self._fleet.nodes:
            raise Unavailable(Reason.UPSTREAM_UNAVAILABLE, f"node '{source.node_id}' has gone")
        node = self._effects.node(source.node_id)
        return await node.read_tokens(model.spec.source, source.engine, question, min(left_s, _ONE_WITHIN_S))


def _as_told(source: TokenSource, error: LlorchError) -> LlorchError:
    """What is between the daemons alone is told as such: no other token of the client's would help, for example."""
    if not isinstance(error, Unauthenticated | Internal | Unimplemented):
        return error
    return Unavailable(
        Reason.UPSTREAM_UNAVAILABLE,
        f"node '{source.node_id}' can't tell tokens: it refuses this orchestrator, is of an earlier release, or has "
        "failed; its log says which",
    )


def _most_telling(failures: Sequence[LlorchError]) -> LlorchError | None:
    """The first one that is more than that there is no file; None where each is that."""
    return next((error for error in failures if error.reason is not Reason.MODEL_FILE_MISSING), None)
