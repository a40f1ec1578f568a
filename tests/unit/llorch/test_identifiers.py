import re
import time

import pytest

from llorch.errors import InvalidArgument
from llorch.identifiers import check_id, new_id, secret_token, token_fingerprint


def test_ids_sort_by_time_and_are_lower_case() -> None:
    first = new_id("task")
    time.sleep(0.002)
    second = new_id("task")
    assert first < second
    assert re.fullmatch(r"task-[0-9a-v]{26}", first)


def test_ids_do_not_repeat() -> None:
    assert len({new_id("x") for _ in range(1000)}) == 1000


def test_own_ids_pass_the_check() -> None:
    made = new_id("attempt")
    assert check_id(made, "attempt_id") == made


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "ä", "x" * 129, "a\n", "a\x00"])
def test_ids_of_another_form_are_refused_with_the_fields_name(bad: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_id(bad, "attempt_id")
    assert caught.value.violations[0].field == "attempt_id"


def test_a_fingerprint_tells_tokens_apart_and_not_the_token() -> None:
    token = secret_token()
    assert len(token) >= 32
    assert re.fullmatch(r"token:[0-9a-f]{6}", token_fingerprint(token))
    assert token_fingerprint(token) == token_fingerprint(token)
