"""The text of one choice, released token by token as soon as it is final.

A token is final when its last character is whole and nothing up to it can become part of a stop string. Only
whole tokens are released, so an entry's text is exactly that of its token ids; what was released never takes
part in a later stop string, and a run that resumes therefore starts with an empty buffer.
"""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from worker_orcd.text.stop_strings import earliest_stop, held_from


class Released(NamedTuple):
    """`text` is final, and so are the tokens it came from. `stop` is the stop string that was met; the text
    ends before it, and the answer with the text.
    """

    token_ids: tuple[int, ...]
    text: str
    stop: str = ""


class OutputText:
    """Pieces of the vocabulary go in, released text comes out.

    A piece is `str` where its bytes are whole characters by themselves (the usual case, which costs nothing),
    and `bytes` where they are not. Bytes that are not UTF-8 come out as U+FFFD.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._inside_character = False
        self._held_ids: list[int] = []
        self._held_ends: list[int | None] = []
        """Length of `_held_text` after each held token; None where the token ends inside a character."""
        self._held_text = ""

    @property
    def is_empty(self) -> bool:
        """Nothing is held back."""
        return not self._held_ids

    def push(self, token_id: int, piece: str | bytes) -> Released | None:
        """Takes the next token; returns what became final with it. After a stop nothing may be pushed."""
        if not self._held_ids and not self._stops and isinstance(piece, str):
            return Released((token_id,), piece)
        self._hold(token_id, piece)
        stop, at = earliest_stop(self._held_text, self._stops)
        if stop:
            return Released(tuple(self._held_ids), self._held_text[:at], stop)
        return self._release_up_to(held_from(self._held_text, self._stops))

    def flush(self) -> Released | None:
        """The end of the answer: what was held back is final now. A character that was not finished is left out: its
        tokens are there, without text.
        """
        if not self._held_ids:
            return None
        return Released(tuple(self._held_ids), self._held_text)

    def _hold(self, token_id: int, piece: str | bytes) -> None:
        if isinstance(piece, str) and not self._inside_character:
            self._held_text += piece
        else:
            self._held_text += self._decoder.decode(piece.encode() if isinstance(piece, str) else piece)
            self._inside_character = bool(self._decoder.getstate()[0])
        self._held_ids.append(token_id)
        self._held_ends.append(None if self._inside_character else len(self._held_text))

    def _release_up_to(self, limit: int) -> Released | None:
        for index in range(len(self._held_ends) - 1, -1, -1):
            end = self._held_ends[index]
            if end is not None and end <= limit:
                return self._take(index + 1, end)
        return None

    def _take(self, count: int, end: int) -> Released:
        released = Released(tuple(self._held_ids[:count]), self._held_text[:end])
        self._held_text = self._held_text[end:]
        self._held_ids = self._held_ids[count:]
        self._held_ends = [None if held is None else held - end for held in self._held_ends[count:]]
        return released
