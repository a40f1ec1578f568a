"""The workers and nodes that can tell tokens are asked one after the other."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llama_orch.v2 import tokens_pb2
from llorch.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    LlorchError,
    NotFound,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from orchestratord.core.facts.fleet import Fleet, Node, NodeState
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from orchestratord.core.placement.token_sources import TokenSource
from orchestratord.runtime import token_answers
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.token_answers import TokenAnswers

MODEL = Model(ModelSpec("coder", "file:/coder.gguf"), Origin.CALL, "a test", 0)
QUESTION = tokens_pb2.TokenQuestion(text=tokens_pb2.TextToTokenize(text="x"))
WORKER, NODE = TokenSource("garage", worker_id="w"), TokenSource("garage", engine="sim")
LOST = Unavailable(Reason.UPSTREAM_UNAVAILABLE, "gone")
NO_FILE = NotFound(Reason.MODEL_FILE_MISSING, "coder.gguf is not there")
NO_ENGINE = FailedPrecondition(Reason.MODEL_LOAD_FAILED, "llama-cpp-python can't be imported; install it")
BUSY = ResourceExhausted(Reason.TOO_MANY_CALLS, "busy", retry_after_ms=1000)


class Asked:
    """Plays the links to workers and nodes: each answers, or raises, what is next. `times` are those that it got."""

    def __init__(self, *answers: LlorchError | int) -> None:
        self._answers = list(answers)
        self.times: list[float] = []
        self.sources: list[tuple[str, ...]] = []

    def link(self, worker_id: str) -> Any:
        async def read(question: tokens_pb2.TokenQuestion, timeout_s: float) -> tokens_pb2.TokenAnswer:
            return self._next((worker_id,), question, timeout_s)

        return SimpleNamespace(read_tokens=read)

    def node(self, node_id: str) -> Any:
        async def read(
            source: str, engine: str, question: tokens_pb2.TokenQuestion, timeout_s: float
        ) -> tokens_pb2.TokenAnswer:
            return self._next((node_id, source, engine), question, timeout_s)

        return SimpleNamespace(read_tokens=read)

    def _next(
        self, source: tuple[str, ...], question: tokens_pb2.TokenQuestion, timeout_s: float
    ) -> tokens_pb2.TokenAnswer:
        assert question is QUESTION
        self.times.append(timeout_s)
        self.sources.append(source)
        answer = self._answers.pop(0)
        if isinstance(answer, LlorchError):
            raise answer
        return tokens_pb2.TokenAnswer(count=answer)


def ready(node_id: str) -> Node:
    return Node(node_id, "", "", "", "", registered_at=0.0, last_report_at=0.0, state=NodeState.READY)


async def ask(asked: Asked, *sources: TokenSource, nodes: Sequence[str] = ("garage", "attic")) -> int:
    fleet = Fleet(nodes={node_id: ready(node_id) for node_id in nodes})
    return (await TokenAnswers(fleet, cast("EffectRunner", asked)).ask(MODEL, sources, QUESTION)).count


@pytest.mark.parametrize("failure", [LOST, NO_FILE, NO_ENGINE, BUSY, DeadlineExceeded(Reason.DEADLINE_PASSED, "slow")])
async def test_where_one_can_not_answer_the_next_one_is_asked(failure: LlorchError) -> None:
    asked = Asked(failure, 7)
    assert await ask(asked, WORKER, NODE) == 7
    assert asked.sources == [("w",), ("garage", "file:/coder.gguf", "sim")]


async def test_what_is_wrong_with_the_question_is_told_at_once() -> None:
    asked = Asked(InvalidArgument(Reason.INVALID_TEMPLATE, "the model's chat template says: no"), 7)
    with pytest.raises(InvalidArgument, match="says: no"):
        await ask(asked, WORKER, NODE)


async def test_a_node_that_has_gone_is_passed_over() -> None:
    assert await ask(Asked(7), NODE, TokenSource("attic", engine="sim"), nodes=["attic"]) == 7


@pytest.mark.parametrize("failures", [[], [NO_FILE], [NO_FILE, NO_FILE]])
async def test_where_no_node_has_the_file_the_remedy_is_told(failures: list[LlorchError]) -> None:
    with pytest.raises(FailedPrecondition, match="llorch pull coder") as refused:
        await ask(Asked(*failures), *[NODE] * len(failures))
    assert refused.value.reason is Reason.MODEL_FILE_MISSING


@pytest.mark.parametrize("failures", [[NO_FILE, NO_ENGINE], [NO_ENGINE, NO_FILE], [NO_ENGINE, LOST]])
async def test_of_several_failures_the_one_that_tells_most_is_told(failures: list[LlorchError]) -> None:
    with pytest.raises(FailedPrecondition, match="install it"):
        await ask(Asked(*failures), *[NODE] * len(failures))


@pytest.mark.parametrize(
    "failure",
    [
        Unauthenticated(Reason.TOKEN_INVALID, "the token is not known"),
        Unimplemented(Reason.NOT_IMPLEMENTED, "no such method"),
        Internal(Reason.INTERNAL, "err-1"),
    ],
)
async def test_what_is_between_daemons_is_not_told_as_the_clients_fault(failure: LlorchError) -> None:
    with pytest.raises(Unavailable, match="node 'garage' can't tell tokens") as refused:
        await ask(Asked(failure), NODE)
    assert refused.value.reason is Reason.UPSTREAM_UNAVAILABLE


async def test_all_together_have_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(LOST, LOST)
    with pytest.raises(Unavailable):
        await ask(asked, WORKER, NODE)
    assert asked.times[0] <= token_answers._ONE_WITHIN_S
    assert asked.times[1] <= token_answers._ONE_WITHIN_S
    monkeypatch.setattr(token_answers, "WITHIN_S", 0.5)
    asked = Asked(7)
    await ask(asked, NODE)
    assert asked.times[0] <= 0.5
