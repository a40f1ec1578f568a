"""The text of every token, looked up once at load instead of asked for at every step."""

import ctypes
from typing import Any

_FIRST_TRY_BYTES = 256


def piece_table(lib: Any, vocab: int, size: int) -> list[str | bytes]:
    """Text by token id: `str` where the bytes are whole characters, else `bytes`. Control tokens are empty."""
    buffer = ctypes.create_string_buffer(_FIRST_TRY_BYTES)
    return [_readable(_piece(lib, vocab, token_id, buffer)) for token_id in range(size)]


def special_texts(lib: Any, vocab: int, size: int) -> list[str]:
    """What control and unknown tokens look like in a text that is parsed for them."""
    special = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
    ids = (token_id for token_id in range(size) if lib.llama_vocab_get_attr(vocab, token_id) & special)
    texts = (bytes(lib.llama_vocab_get_text(vocab, token_id)).decode(errors="replace") for token_id in ids)
    return [text for text in texts if text]


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
