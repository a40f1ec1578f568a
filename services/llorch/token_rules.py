"""What a token has to be: something that a header carries; where other machines may try, nothing that is guessed."""

import re
from typing import Annotated

from pydantic import AfterValidator

from llorch.errors import FailedPrecondition, Reason, invalid_field
from llorch.ports import is_loopback_host, split_address

LEAST_CHARACTERS = 16
EXAMPLE_TOKENS = frozenset({"change-me"})
"""The tokens that documentation, examples and files for deployment show. Every reader of those knows them."""

_HOW_TO_MAKE_ONE = "make one with `openssl rand -hex 24`"
_SHOWABLE = re.compile(r"[\x21-\x7e]{1,4096}")


def _showable(token: str) -> str:
    if _SHOWABLE.fullmatch(token) is None:
        what = "has characters that no header carries" if token else "is empty"
        raise ValueError(f"{what}; leave it out, or {_HOW_TO_MAKE_ONE}")
    return token


BearerToken = Annotated[str, AfterValidator(_showable)]
"""The type of a setting. An empty one is refused: its owner means to have one, and it would leave the door open."""


def refuse_open_bind(bind: str, token: str | None, setting: str = "token") -> None:
    """Refuses to listen beyond this machine without a token that is hard to guess. `bind` is `host:port`; `setting` is
    where the token comes from.
    """
    host, _ = split_address(bind)
    if host == "localhost" or is_loopback_host(host):
        return
    flag = f"--{setting.replace('_', '-')}"
    if not token:
        raise FailedPrecondition(
            Reason.TOKEN_MISSING,
            f"bind {bind} can be reached from other machines, but no token is set; set one ({flag}, or `{setting}` "
            f"in the settings file), or bind to 127.0.0.1",
        )
    if token in EXAMPLE_TOKENS:
        raise invalid_field(setting, f"is the one of an example, which everyone knows; {_HOW_TO_MAKE_ONE} for {bind}")
    if len(token) < LEAST_CHARACTERS:
        raise invalid_field(
            setting,
            f"has {len(token)} characters; bind {bind} can be reached from other machines, and needs a token of "
            f"{LEAST_CHARACTERS} or more: {_HOW_TO_MAKE_ONE}",
        )
