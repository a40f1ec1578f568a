"""Log probabilities as chat answers show them, and as plain completions do."""

import math
from collections.abc import Iterable

from gatewayd.openai.fields import Json
from llama_orch.v2 import log_entry_pb2

_IMPOSSIBLE = -9999.0
"""OpenAI's word for a probability of zero; JSON has no infinity."""

Positions = Iterable[log_entry_pb2.PositionLogprobs]


def chat_logprobs(positions: Positions) -> Json | None:
    """None where none were asked for."""
    shown = [{**_token(each.chosen), "top_logprobs": [_token(token) for token in each.top]} for each in positions]
    return {"content": shown, "refusal": None} if shown else None


def completion_logprobs(positions: Positions, text_offset: int) -> Json | None:
    """`text_offset` is where in the answer the first token begins, in characters."""
    shown: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for each in positions:
        shown["tokens"].append(each.chosen.text)
        shown["token_logprobs"].append(_number(each.chosen.logprob))
        shown["top_logprobs"].append({token.text: _number(token.logprob) for token in each.top})
        shown["text_offset"].append(text_offset)
        text_offset += len(each.chosen.text)
    return shown if shown["tokens"] else None


def _token(token: log_entry_pb2.TokenLogprob) -> Json:
    return {"token": token.text, "logprob": _number(token.logprob), "bytes": list(token.raw)}


def _number(logprob: float) -> float:
    """32 bits hold about seven digits; the rest would be noise."""
    return float(f"{logprob:.7g}") if math.isfinite(logprob) else _IMPOSSIBLE
