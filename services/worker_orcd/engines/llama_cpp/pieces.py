"""The text of every token, looked up once at load instead of asked for at every step."""

import ctypes
from typing import Any

from worker_orcd.engines.llama_cpp.special_tokens import SpecialToken

_FIRST_TRY_BYTES = 256
_SHOWN_CONTROL = frozenset({b"<|channel|>", b"<|message|>", b"<|start|>", b"<|constrain|>", b"<|end|>"})
"""Control tokens of gpt-oss, which llama.cpp makes user-defined ones to have them in its output."""


def piece_table(lib: Any, vocab: int, size: int) -> list[str | bytes]:
    """Text by token id: `str` where the bytes are whole characters, else `bytes`. Control tokens are empty."""
    buffer = ctypes.create_string_buffer(_FIRST_TRY_BYTES)
    return [_readable(_piece(lib, vocab, token_id, buffer)) for token_id in range(size)]


def special_tokens(lib: Any, vocab: int, size: int) -> list[SpecialToken]:
    """Those that the library looks for in a text before it tokenizes the rest, in its order: the longest first."""
    control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
    found = []
    for token_id in range(size):
        attributes = lib.llama_vocab_get_attr(vocab, token_id)
        if not attributes & (control | lib.LLAMA_TOKEN_ATTR_USER_DEFINED):
            continue
        text = bytes(lib.llama_vocab_get_text(vocab, token_id))
        if text:
            found.append(
                SpecialToken(
                    token_id,
                    text,
                    is_control=bool(attributes & control) or text in _SHOWN_CONTROL,
                    is_always_found=not attributes & control,
                    eats_before=bool(attributes & lib.LLAMA_TOKEN_ATTR_LSTRIP),
                    eats_after=bool(attributes & lib.LLAMA_TOKEN_ATTR_RSTRIP),
                )
            )
    return sorted(found, key=lambda token: len(token.text), reverse=True)


def _piece(lib: Any, vocab: int, token_id: int, buffer: Any) -> bytes:
    length = lib.llama_token_to_piece(vocab, token_id, buffer, len(buffer), 0, False)
    if length < 0:
        buffer = ctypes.create_string_buffer(-length)
        length = lib.llama_token_to_piece(vocab, token_id, buffer, len(buffer), 0, False)
    return bytes(buffer.raw[:length])


def _readable(piece: bytes) -> str | bytes:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece
