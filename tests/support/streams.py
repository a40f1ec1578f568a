"""The property that every stream of a task has, whichever door it came through.

    text = check_stream(events)      # TaskEvents of Generate or StreamTask
    text = check_sse(messages)       # the JSON objects of /v2/tasks/{id}/events
    text = check_chunks(data)        # what stands behind `data:` of /v1/chat/completions

The first two assert: `started` comes first; token indices are contiguous within a choice; text is valid UTF-8; there is
exactly one terminal, which is the last; its `tokens_out` is the number of tokens that came. All return the text of the
first choice. `first_index` is where a resumed stream goes on (tokens of the first choice that were read before).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_orch.v2 import task_event_pb2

TERMINALS = frozenset({"end", "error"})


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event says, as far as this check goes."""

    kind: str
    choice: int = 0
    index: int = 0
    count: int = 0
    text: str = ""
    tokens_out: int | None = None


def check_stream(events: Iterable[task_event_pb2.TaskEvent], *, first_index: int = 0) -> str:
    return _check([_piece_of_event(event) for event in events], first_index)


def check_sse(messages: Iterable[Mapping[str, Any]], *, first_index: int = 0) -> str:
    return _check([_piece_of_message(message) for message in messages], first_index)


def _check(pieces: Sequence[Piece], first_index: int) -> str:
    kinds = [piece.kind for piece in pieces]
    assert kinds[:1] == ["started"], f"a stream starts with started, not {kinds[:1]}"
    assert kinds.count("started") == 1, kinds
    assert [kind for kind in kinds if kind in TERMINALS] == kinds[-1:], f"one terminal, at the end: {kinds}"
    next_index = defaultdict(int, {0: first_index})
    texts: dict[int, list[str]] = defaultdict(list)
    for piece in pieces:
        if piece.kind == "token":
            expected = next_index[piece.choice]
            assert piece.index == expected, f"choice {piece.choice}: token {piece.index} where {expected} is due"
            next_index[piece.choice] += piece.count
            texts[piece.choice].append(piece.text)
    told = pieces[-1].tokens_out
    assert told in (None, sum(next_index.values())), f"the end tells of {told} tokens, {dict(next_index)} came"
    text = "".join(texts[0])
    text.encode()  # a lone surrogate would fail here
    return text


def _piece_of_event(event: task_event_pb2.TaskEvent) -> Piece:
    kind = event.WhichOneof("event")
    assert kind is not None, f"an event says something: {event}"
    if kind == "tokens":
        tokens = event.tokens
        return Piece("token", tokens.choice, tokens.index, tokens.count, tokens.text)
    if kind == "end":
        return Piece("end", tokens_out=event.end.tokens_out)
    return Piece(kind)


def _piece_of_message(message: Mapping[str, Any]) -> Piece:
    kind = message["type"]
    if kind == "token":
        return Piece("token", message.get("choice", 0), message["i"], message["n"], message.get("t", ""))
    return Piece(kind, tokens_out=message["tokens_out"] if kind == "end" else None)


def check_chunks(data: Sequence[str]) -> str:
    """A streamed chat answer with one choice: chunks of one answer, one opening, one end, nothing after `[DONE]`."""
    assert data[-1:] == ["[DONE]"], f"the last is [DONE]: {data[-1:]}"
    chunks = [json.loads(one) for one in data[:-1]]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1, "all are of one answer"
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [("role" in choice["delta"]) for choice in choices] == [True] + [False] * (len(choices) - 1)
    ends = [choice["finish_reason"] for choice in choices]
    assert ends[-1] is not None, ends
    assert ends[:-1] == [None] * (len(ends) - 1), ends
    return "".join(choice["delta"].get("content") or "" for choice in choices)
