"""What is said of a model's file, by what the nodes have said of it."""

import pytest

from llorch.errors import FailedPrecondition, LlorchError, NotFound, Reason, Unavailable
from orchestratord.runtime.source_check import NodeSaid, judge

SOURCE = "file:/models/x.gguf"
MISSING = NotFound(Reason.MODEL_FILE_MISSING, "file:/models/x.gguf: x.gguf is not there; bring it there")
TEXT = FailedPrecondition(Reason.MODEL_FILE_INVALID, "x.gguf is not a model that can be loaded: it is text")
GONE = Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the other side ended the call")


def said(node_id: str, refusal: LlorchError | None = None, *, is_known: bool = True) -> NodeSaid:
    return NodeSaid(node_id, refusal, is_known)


def test_one_node_that_has_it_is_enough() -> None:
    assert judge(SOURCE, [said("attic", MISSING), said("cellar", TEXT), said("garage")], ["shed"]) == ""


@pytest.mark.parametrize(
    ("answers", "reason", "words"),
    [
        ([said("garage", MISSING)], Reason.MODEL_FILE_MISSING, r"bring it there \(on garage\), or connect"),
        ([said("attic", MISSING), said("garage", TEXT)], Reason.MODEL_FILE_INVALID, r"it is text \(on garage\)"),
        ([said(f"n{number}", MISSING) for number in range(6)], Reason.MODEL_FILE_MISSING, "n0, n1, n2, n3 and 2 more"),
    ],
)
def test_where_none_has_it_the_model_is_refused(answers: list[NodeSaid], reason: Reason, words: str) -> None:
    with pytest.raises(FailedPrecondition, match=words) as refused:
        judge(SOURCE, answers, [])
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("answers", "away", "who"),
    [
        ([], [], ""),
        ([], ["shed"], "of shed "),
        ([said("garage", MISSING)], ["shed"], "of shed "),
        ([said("attic", TEXT), said("garage", GONE, is_known=False)], [], "of garage "),
    ],
)
def test_a_node_that_could_have_it_and_has_not_said_so_keeps_it_open(
    answers: list[NodeSaid], away: list[str], who: str
) -> None:
    told = judge(SOURCE, answers, away)
    assert told == f"no machine {who}could say whether {SOURCE} is a model; its file is looked at when it is loaded"
