"""The messages that an answer of gpt-oss is made of. Pure.

Each is `<|start|>assistant<|channel|>NAME to=WHOM …<|message|>…<|end|>`, where the prompt has written the first
`<|start|>assistant`. To whom a message goes stands before its channel or behind it.
"""

import re
from dataclasses import dataclass

_BEGINNINGS = ("<|start|>assistant", "<|channel|>", "to=")
_END = "<|message|>"
_MOST_CHARACTERS = 256
_RECIPIENT = r"\s*(?:to=(?P<{}>[^\s<]+)\s*)?"
_HEADER = re.compile(
    r"(?:<\|start\|>assistant)?"
    + _RECIPIENT.format("before")
    + r"(?:<\|channel\|>\s*(?P<channel>analysis|commentary|final)(?!\w)"
    + _RECIPIENT.format("behind")
    + r")?(?:<\|constrain\|>\s*\w*|json|code)?\s*"
)
"""Whatever else stands before a message is text of the model, and not lost."""
_FUNCTIONS = "functions."


@dataclass(frozen=True, slots=True)
class Header:
    """`tool` is called by the message; empty if it is none of the functions. `end` is where the message begins; 0 where
    nothing is a header.
    """

    channel: str = ""
    recipient: str = ""
    end: int = 0

    @property
    def tool(self) -> str:
        return self.recipient.removeprefix(_FUNCTIONS) if self.recipient.startswith(_FUNCTIONS) else ""

    @property
    def is_thought(self) -> bool:
        return self.channel == "analysis" and not self.recipient

    @property
    def is_said(self) -> bool:
        """To the user: the answer, or what leads to a call."""
        return self.channel in ("final", "commentary") and not self.recipient


NO_HEADER = Header()


def header_at(text: str, is_whole: bool) -> Header | None:
    """The header that a text without white space at its start begins with; None if more of it has to come."""
    if not any(text.startswith(beginning) for beginning in _BEGINNINGS):
        may_come = not is_whole and any(beginning.startswith(text) for beginning in _BEGINNINGS)
        return None if may_come else NO_HEADER
    end = text.find(_END, 0, _MOST_CHARACTERS)
    if end < 0:
        return NO_HEADER if is_whole or len(text) >= _MOST_CHARACTERS else None
    header = _HEADER.fullmatch(text, 0, end)
    if header is None:
        return NO_HEADER
    return Header(header["channel"] or "", header["before"] or header["behind"] or "", end + len(_END))
