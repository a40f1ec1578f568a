"""A model in memory: its weights, its vocabulary and its chat template."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, InvalidArgument, LlorchError, Reason
from worker_orcd.engines.llama_cpp.amx import may_repack
from worker_orcd.engines.llama_cpp.deep_stack import call_on_deep_stack
from worker_orcd.engines.llama_cpp.masking import Part
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.pieces import piece_table, special_tokens
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.llama_cpp.special_tokens import fragments
from worker_orcd.engines.llama_cpp.text_runs import longest_run

_ALL_LAYERS = -1
_LONG_RUN = 4_096
_LONGEST_RUN = 100_000
"""Characters. The library takes about 320 bytes of stack for each; a usual stack has 8 MiB, a deep one 128."""


class Model:
    """Loaded on construction; `close` frees it after every context of it. What it holds is never changed."""

    def __init__(
        self,
        native: Native,
        shape: LlamaCppShape,
        go_on: Callable[[], bool],
        hear_share: Callable[[float], None] = lambda _share: None,
        *,
        only_vocabulary: bool = False,
    ) -> None:
        """`hear_share` is called with the share that is loaded, 0 to 1, whenever `go_on` is asked."""
        self._lib: Any = native.lib
        self.handle = open_model(native, shape, go_on, hear_share, only_vocabulary=only_vocabulary)
        self.vocab = self._lib.llama_model_get_vocab(self.handle)
        refusal = self._refusal()
        if refusal:
            self.close()
            raise FailedPrecondition(Reason.MODEL_LOAD_FAILED, f"{shape.model_path.name}: {refusal}")
        self.vocabulary_size = int(self._lib.llama_vocab_n_tokens(self.vocab))
        self.context_trained = int(self._lib.llama_model_n_ctx_train(self.handle))
        self.pieces = piece_table(self._lib, self.vocab, self.vocabulary_size)
        self._special_tokens = special_tokens(self._lib, self.vocab, self.vocabulary_size)
        self.special_texts = [token.text.decode(errors="replace") for token in self._special_tokens if token.is_control]
        """What control and unknown tokens look like in a text that is parsed for them."""
        self._control_ids = frozenset(
            token.token_id
            for token in self._special_tokens
            if self._lib.llama_vocab_is_control(self.vocab, token.token_id)
        )
        self.longest_piece_bytes = max(len(_as_bytes(piece)) for piece in (*self.pieces, *self.special_texts))
        self.ends_text = frozenset(
            token_id for token_id in range(self.vocabulary_size) if self._lib.llama_vocab_is_eog(self.vocab, token_id)
        )
        self.adds_bos = bool(self._lib.llama_vocab_get_add_bos(self.vocab))
        self.bos_id = int(self._lib.llama_vocab_bos(self.vocab))
        self.bos_text = self._text_of(self.bos_id)
        self.eos_id = int(self._lib.llama_vocab_eos(self.vocab))
        self.eos_text = self._text_of(self.eos_id)
        self.adds_eos = bool(self._lib.llama_vocab_get_add_eos(self.vocab))
        self.separator_id = int(self._lib.llama_vocab_sep(self.vocab))
        self.adds_separator = bool(self._lib.llama_vocab_get_add_sep(self.vocab))
        self.vector_width = int(self._lib.llama_model_n_embd_out(self.handle))
        self.chat_template = self._template_named(None)
        self.tool_template = self._template_named(b"tool_use")
        """For conversations with tools, where the model has one of its own for these; else empty."""
        self.rank_template = self._template_named(b"rerank")
        """For a query with a document; empty where the model has none."""

    def tokenize_parts(self, parts: Sequence[Part]) -> list[int]:
        """Token ids of a text: those that the library gives for the whole of it, but that what is literal has no
        control tokens. Raises InvalidArgument where the vocabulary has no other way to write a part of it.
        """
        if not any(part.literal for part in parts):
            return self.tokenize("".join(part.text for part in parts), parse_special=True)
        ids = []
        for fragment in fragments(parts, self._special_tokens):
            ids += [fragment] if isinstance(fragment, int) else self._text_ids(fragment)
        return ids

    def tokenize_whole(self, text: str) -> list[int]:
        """Of a text that is read for a vector: with the tokens around it that the model wants."""
        return self.tokenize(text, parse_special=False, add_special=True)

    def tokenize(self, text: str | bytes, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """Token ids of a text; with `add_special` also those that the model wants around a text. Safe on any thread
        while the model is open.
        """
        content = _as_bytes(text)
        if len(content) > _LONG_RUN and (run := longest_run(content.decode(errors="replace"))) > _LONG_RUN:
            if run > _LONGEST_RUN:
                raise InvalidArgument(
                    Reason.UNSUPPORTED_CONTENT,
                    f"the text has {run} letters, digits, spaces or other characters of one kind in a row, and at most "
                    f"{_LONGEST_RUN} can be taken; put others between them, or shorten it",
                )
            return call_on_deep_stack(lambda: self._tokenize(content, parse_special, add_special))
        return self._tokenize(content, parse_special, add_special)

    def _tokenize(self, content: bytes, parse_special: bool, add_special: bool) -> list[int]:
        room = len(content) + 8
        while True:
            ids = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(self.vocab, content, len(content), ids, room, add_special, parse_special)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def spelled(self, token_id: int) -> bytes:
        """The bytes of a token; a control token as it is written where control tokens are looked for."""
        return _as_bytes(self.pieces[token_id]) or self._text_of(token_id).encode()

    def close(self) -> None:
        self._lib.llama_model_free(self.handle)

    def _refusal(self) -> str:
        """Why this engine can't serve the model; empty if it can."""
        if self._lib.llama_model_has_encoder(self.handle):
            return "models with an encoder beside a decoder are not supported"
        if not self._lib.llama_model_has_decoder(self.handle):
            return "it is one half of a model with an encoder and a decoder, which are not supported"
        return ""

    def _text_ids(self, text: bytes) -> list[int]:
        """Where a part of a control token's text is a token, too, the library may put the whole together again."""
        ids = self.tokenize(text, parse_special=False)
        for token_id in self._control_ids.intersection(ids):
            if (control := self._text_of(token_id)).encode() in text:
                raise InvalidArgument(
                    Reason.UNSUPPORTED_CONTENT,
                    f"this model can't tell the text '{control}' from its control token; leave it out",
                )
        return ids

    def _template_named(self, name: bytes | None) -> str:
        template = self._lib.llama_model_chat_template(self.handle, name)
        return template.decode(errors="replace") if template else ""

    def _text_of(self, token_id: int) -> str:
        if token_id < 0:
            return ""
        return bytes(self._lib.llama_vocab_get_text(self.vocab, token_id)).decode(errors="replace")


def open_model(
    native: Native,
    shape: LlamaCppShape,
    go_on: Callable[[], bool],
    hear_share: Callable[[float], None] = lambda _share: None,
    *,
    with_weights: bool = True,
    only_vocabulary: bool = False,
) -> Any:
    """The library's handle. Without its weights a model only serves to ask how much memory it would take; with its
    vocabulary alone, to make tokens.
    """
    lib = native.lib
    native.log.forget()
    params = lib.llama_model_default_params()
    on_cuda = shape.devices.kind is DeviceKind.CUDA
    params.n_gpu_layers = _ALL_LAYERS if on_cuda else 0
    no_devices = (ctypes.c_void_p * 1)(None)
    if not on_cuda:
        params.devices = ctypes.cast(no_devices, ctypes.c_void_p)
    _fill_split(lib, params, shape)

    def heard(share: float, _data: object) -> bool:
        hear_share(share)
        return go_on()

    progress = lib.llama_progress_callback(heard)
    params.use_extra_bufts = not on_cuda and not only_vocabulary and may_repack(native)
    # Read, not mapped: what is written over the file later would be in a mapped model, and a file that is cut end this
    # process.
    params.load_mode = lib.LLAMA_LOAD_MODE_NONE
    params.progress_callback = progress
    params.no_alloc = not with_weights
    params.vocab_only = only_vocabulary
    handle = lib.llama_model_load_from_file(str(shape.model_path).encode(), params)
    if not handle:
        raise load_failure(native, shape)
    return handle


def _fill_split(lib: Any, params: Any, shape: LlamaCppShape) -> None:
    """How the model is spread over devices."""
    params.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{shape.split.upper()}")
    if not shape.tensor_split:
        return
    shares = (ctypes.c_float * lib.llama_max_devices())(*shape.tensor_split)
    params.tensor_split = shares  # the structure keeps the array alive


def load_failure(native: Native, shape: LlamaCppShape) -> LlorchError:
    """In the library's own words, without the path."""
    complaint = native.log.first_complaint().replace(str(shape.model_path), shape.model_path.name)
    return FailedPrecondition(
        Reason.MODEL_LOAD_FAILED, f"llama.cpp could not load {shape.model_path.name}: {complaint}"
    )


def _as_bytes(piece: str | bytes) -> bytes:
    return piece.encode() if isinstance(piece, str) else piece
