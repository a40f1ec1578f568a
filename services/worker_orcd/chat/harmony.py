"""The messages that an answer of gpt-oss is made of. Pure.

Each is `<|start|>assistant<|channel|>NAME to=WHOM …<|message|>…<|end|>`, where the prompt has written the first
`<|start|>assistant`. To whom a message goes stands before its channel or behind it.
"""

import re
from dataclasses import dataclass

_BEGINNINGS = ("<|start|>assistant", "<|channel|>", "to=")
_END = "<|message|>"
_MOST_CHARACTERS = 256
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"(?:^|\s|assistant)to=([^\s<]+)")
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
    head = text[:end]
    channel, recipient = _CHANNEL.search(head), _RECIPIENT.search(head)
    return Header(channel.group(1) if channel else "", recipient.group(1) if recipient else "", end + len(_END))
