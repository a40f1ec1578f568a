import math

import numpy as np
import pytest

from worker_orcd.engines.llama_cpp.logprobs import position_logprobs

PIECES: list[str | bytes] = ["a", b"\xc3", "c", "d"]


def row(*probabilities: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Logits that mean these probabilities; what is added to all of them means nothing."""
    return np.log(np.array(probabilities, np.float32)) + np.float32(500)


def test_log_probabilities_come_best_first_and_equal_ones_by_id() -> None:
    told = position_logprobs(row(0.2, 0.4, 0.2, 0.2), 3, 3, PIECES)
    assert [token.token_id for token in told.top] == [1, 0, 2]
    assert [token.raw for token in told.top] == [b"\xc3", b"a", b"c"]
    assert math.exp(told.top[0].logprob) == pytest.approx(0.4, rel=1e-3)
    assert math.exp(told.chosen.logprob) == pytest.approx(0.2, rel=1e-3)


def test_alternatives_may_be_none_or_all() -> None:
    assert position_logprobs(row(0.5, 0.5), 0, 0, PIECES).top == ()
    assert [token.token_id for token in position_logprobs(row(0.3, 0.7), 0, 20, PIECES).top] == [1, 0]


def test_a_probability_is_never_above_one() -> None:
    assert position_logprobs(np.array([1000.0, -1000.0], np.float32), 0, 1, PIECES).chosen.logprob <= 0
