"""Pages of lists: in one order, from a token that names the last item of the page before."""

import base64
from collections.abc import Callable, Iterable
from typing import TypeVar

from llorch.errors import InvalidArgument, Reason, invalid_field

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

Item = TypeVar("Item")


def page_of(
    items: Iterable[Item], key: Callable[[Item], str], page_size: int, page_token: str, *, newest_first: bool = False
) -> tuple[list[Item], str]:
    """The items of one page and the token of the next, which is empty on the last page. Keys are unique."""
    size, after = size_of(page_size), key_of(page_token)
    ordered = sorted(items, key=key, reverse=newest_first)
    if after is not None:
        ordered = [item for item in ordered if (key(item) < after if newest_first else key(item) > after)]
    page = ordered[:size]
    return page, token_of(key(page[-1])) if len(ordered) > size else ""


def size_of(page_size: int) -> int:
    if page_size > LARGEST_PAGE:
        raise invalid_field("page_size", f"is {page_size}; at most {LARGEST_PAGE}")
    return page_size or DEFAULT_PAGE


def token_of(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def key_of(token: str) -> str | None:
    """Of the last item of the page before; None for the first page."""
    if not token:
        return None
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidArgument(
            Reason.INVALID_PAGE_TOKEN, "page_token: not a token of this server; list again from the first page"
        ) from None
