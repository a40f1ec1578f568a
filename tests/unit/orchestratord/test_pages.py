import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.errors import InvalidArgument, Reason
from orchestratord.api.pages import page_of


@given(st.sets(st.text("abcé", min_size=1, max_size=5)), st.integers(1, 7), st.booleans())
def test_pages_together_are_everything_once_in_order(items: set[str], size: int, newest_first: bool) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page, token = page_of(items, str, size, token, newest_first=newest_first)
        assert len(page) <= size
        seen.extend(page)
        if not token:
            break
    assert seen == sorted(items, reverse=newest_first)


def test_an_item_that_vanished_between_pages_does_no_harm() -> None:
    page, token = page_of(["a", "b", "c"], str, 2, "")
    assert page == ["a", "b"]
    assert page_of(["a", "c"], str, 2, token) == (["c"], "")


@pytest.mark.parametrize("token", ["!", "é", "a"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_of(["a"], str, 1, token)
    assert refused.value.reason is Reason.INVALID_PAGE_TOKEN


def test_too_large_a_page_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at most 1000"):
        page_of(["a"], str, 1001, "")
