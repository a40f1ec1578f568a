"""Tokens by llama.cpp, of models that are not loaded: as its own tokenizer makes them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from support.gguf_writer import write_gguf
from support.llama_reference import LlamaReference
from support.real_model import smollm2
from support.tiny_models import tiny_model, write_tiny_model
from worker_orcd.engines.llama_cpp.vocabulary import open_vocabulary
from worker_orcd.run_spec import Message, Role, RunSpec
from worker_orcd.token_reader import TextToTokenize, TokenReader, answer

pytestmark = pytest.mark.native

TEXTS = (
    "Hello, world",
    " two  spaces\n\n\tand a tab",
    "Grüße, 你好, 🙂 e\u0301",
    "<|im_start|>user\nHi<|im_end|>",
    "x" * 5000,
    "\x00\x01",
)


@pytest.fixture
def vocabulary() -> Iterator[TokenReader]:
    opened = open_vocabulary(smollm2())
    yield opened
    opened.close()


def test_ids_are_those_of_llama_cpps_own_tokenizer(vocabulary: TokenReader) -> None:
    with LlamaReference(smollm2(), 256) as reference:
        for text in TEXTS:
            for control_tokens in (False, True):
                found = answer(vocabulary, TextToTokenize(text, control_tokens, with_pieces=True))
                assert list(found.token_ids) == reference.tokens(text, control_tokens=control_tokens)
                assert b"".join(found.pieces).decode() == text
                prompt = RunSpec(prompt=text, control_tokens=control_tokens)
                assert answer(vocabulary, prompt).count == found.count


def test_the_token_that_begins_a_prompt_is_there_unless_it_is_left_out_or_written_out(tmp_path: Path) -> None:
    """In a vocabulary that wants one, and has a control token for it."""
    vocabulary = open_vocabulary(write_tiny_model(tmp_path, "llama"))
    try:
        whole = list(answer(vocabulary, TextToTokenize("hello world")).token_ids)
        bare = list(answer(vocabulary, TextToTokenize("hello world", add_special=False)).token_ids)
        assert whole[1:] == bare
        beginning = answer(vocabulary, TextToTokenize("hello world", with_pieces=True)).pieces[0].decode()
        written = answer(vocabulary, TextToTokenize(f"{beginning}hello", control_tokens=True)).token_ids
        assert list(written).count(whole[0]) == 1
        unmeant = answer(vocabulary, TextToTokenize(f"{beginning}hello")).token_ids
        assert list(unmeant).count(whole[0]) == 1
        assert len(unmeant) > len(written)
    finally:
        vocabulary.close()


def test_a_chat_without_a_template_is_refused(tmp_path: Path) -> None:
    vocabulary = open_vocabulary(write_tiny_model(tmp_path, "llama", chat_template=""))
    try:
        with pytest.raises(InvalidArgument, match="no chat template") as refused:
            answer(vocabulary, RunSpec(messages=(Message(Role.USER, "Hi"),)))
        assert refused.value.reason is Reason.UNSUPPORTED_OPTION
    finally:
        vocabulary.close()


def test_a_template_that_fails_or_is_none_refuses_the_chat_and_no_text(tmp_path: Path) -> None:
    for template, named in (("{{ raise_exception('no') }}", "says: no"), ("{% for %}", "can't be compiled")):
        vocabulary = open_vocabulary(write_tiny_model(tmp_path, "llama", chat_template=template))
        try:
            for _ in range(2):
                with pytest.raises(InvalidArgument, match=named) as refused:
                    answer(vocabulary, RunSpec(messages=(Message(Role.USER, "Hi"),)))
                assert refused.value.reason is Reason.INVALID_TEMPLATE
            assert answer(vocabulary, RunSpec(prompt="hello")).count > 0
        finally:
            vocabulary.close()


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    path.write_bytes(b"<html>")
    with pytest.raises(FailedPrecondition, match=r"none\.gguf"):
        open_vocabulary(path)
    metadata, tensors = tiny_model("llama")
    for name in [name for name in metadata if name.startswith("tokenizer.")]:
        del metadata[name]
    with pytest.raises(FailedPrecondition, match=r"bare\.gguf"):
        open_vocabulary(write_gguf(tmp_path / "bare.gguf", metadata, tensors))
