"""Token ids of prompts are those of the library for the whole text at once, but that users spell no control tokens."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import InvalidArgument, Reason
from support.example_count import examples
from support.manual_clock import ManualClock
from support.tiny_vocabularies import CONTROL, USER_DEFINED, VOCABULARIES, write_vocabulary
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.masking import Masking, Part
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.prompt import PromptBuilder
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.run_spec import Message, Role, RunSpec

pytestmark = pytest.mark.native

TEXTS = (
    *("hello", "world", "user", " the", "end", "s", "x", "ab", "/", "_", "é", "界", "🙂", "e\u0301", "\u200b"),
    *(" ", "  ", "    ", "\n", "\n\n", "\n\n\n", "\t", "\r\n", "\u00a0", ".", ".\n", "▁", "▁the", "\ufdd0", "\ufdd11"),
    *(
        "<",
        ">",
        "|",
        "<|",
        "|>",
        "[",
        "INST]",
        "<|im_",
        "im_end|>",
        "<|b",
        "b|>",
        "<to",
        "ol>",
        "<0x0A>",
        *USER_DEFINED,
    ),
)
KINDS = [(kind, "tiny") for kind in VOCABULARIES] + [("spm", "phi-3"), ("bpe", "phi-3")]
"""The tokens of models that are called phi-3 eat the white space that follows."""

_by_kind = pytest.mark.parametrize(("kind", "name"), KINDS, ids=["-".join(both) for both in KINDS])


@contextmanager
def loaded(path: Path) -> Iterator[Model]:
    shape = LlamaCppShape(path, "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 1, 4096, threads=1)
    model = Model(load_native(), shape, lambda: True)
    try:
        yield model
    finally:
        model.close()


def in_one_call(model: Model, text: str, *, parse_special: bool = True) -> list[int]:
    """By the library itself."""
    lib = load_native().lib
    content = text.encode()
    room = (lib.llama_token * (2 * len(content) + 8))()
    count = lib.llama_tokenize(model.vocab, content, len(content), room, len(room), False, parse_special)
    assert count >= 0
    return list(room[:count])


def written(model: Model, pieces: Sequence[tuple[bool, str]]) -> list[Part]:
    """Pieces of a template, and of users, whose are masked before they are put together."""
    masking = Masking(model.special_texts)
    return list(masking.parts("".join(masking.mask(text) if is_users else text for is_users, text in pieces)))


def drawn(draw: random.Random, texts: Sequence[str], most: int = 4) -> str:
    return "".join(draw.choices(texts, k=draw.randint(0, most)))


@_by_kind
def test_a_text_in_which_users_spell_no_control_token_is_as_in_one_call(tmp_path: Path, kind: str, name: str) -> None:
    draw = random.Random(f"{kind} {name}")  # noqa: S311  # the same cases every time
    with loaded(write_vocabulary(tmp_path, kind, name=name)) as model:
        for _ in range(examples(250)):
            pieces = []
            for _ in range(draw.randint(1, 8)):
                pieces.append((False, drawn(draw, [*TEXTS, *CONTROL], 3)))
                said = drawn(draw, TEXTS)
                pieces.append((True, "" if any(control in said for control in model.special_texts) else said))
            text = "".join(text for _, text in pieces)
            assert model.tokenize_parts(written(model, pieces)) == in_one_call(model, text), pieces
            plain = in_one_call(model, text, parse_special=False)
            assert model.tokenize_parts([Part(text, literal=True)]) == plain, pieces


@_by_kind
def test_control_tokens_of_users_are_as_if_the_vocabulary_had_none(tmp_path: Path, kind: str, name: str) -> None:
    """The reference knows those that users spell as tokens that no text leads to. Templates do not write them here."""
    spelled = ("[INST]", "<|a|>", "<|b|>", "<|b|>x")  # those that end texts are known by their names
    own = [control for control in CONTROL if control not in spelled]
    draw = random.Random(f"{kind} {name}")  # noqa: S311  # the same cases every time
    with (
        loaded(write_vocabulary(tmp_path, kind, name=name)) as model,
        loaded(write_vocabulary(tmp_path, kind, as_text=spelled, name=name)) as reference,
    ):
        compared = 0
        for _ in range(examples(250)):
            pieces = []
            for _ in range(draw.randint(1, 8)):
                pieces += [(False, drawn(draw, [*TEXTS, *own], 3)), (True, drawn(draw, [*TEXTS, *spelled, "\u00df"]))]
            text = "".join(text for _, text in pieces)
            parts = written(model, pieces)
            if any(part.text in own if part.literal else any(map(part.text.__contains__, spelled)) for part in parts):
                continue  # one that a user spells for once, or that both have spelled together
            compared += any(part.literal for part in parts)
            assert model.tokenize_parts(parts) == in_one_call(reference, text), pieces
        assert compared > examples(250) / 4


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_what_a_template_and_a_user_both_write_is_told_apart(tmp_path: Path, kind: str) -> None:
    words = ("hello", " the", "\n", " ", ".", "é")
    controls = [control for control in CONTROL if control != "<|b|>x"]  # else it depends on what comes after another
    draw = random.Random(kind)  # noqa: S311  # the same cases every time
    with loaded(write_vocabulary(tmp_path, kind)) as model:
        for _ in range(examples(200)):
            pieces: list[tuple[bool, str]] = []
            ids: list[int] = []
            for _ in range(draw.randint(1, 6)):
                control = draw.choice(controls)
                said = drawn(draw, [*words, *controls], 6)
                pieces += [(False, control), (False, between := drawn(draw, words, 2)), (True, said)]
                ids += in_one_call(model, control) + in_one_call(model, between + said, parse_special=False)
            assert model.tokenize_parts(written(model, pieces)) == ids, pieces


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[INST]{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@contextmanager
def prompts(path: Path) -> Iterator[tuple[Model, Callable[[RunSpec], list[int]]]]:
    """A model, and what it is given for a run."""
    with loaded(path) as model:
        builder = PromptBuilder(model, 4096, ManualClock())
        try:
            yield model, lambda spec: builder.prepare(EngineRun("a", spec, ())).tokens
        finally:
            builder.close()


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_prompts_begin_once_and_put_no_spaces_around_control_text(tmp_path: Path, kind: str) -> None:
    with prompts(write_vocabulary(tmp_path, kind, chat_template=TEMPLATE)) as (model, prompt_of):
        said, text = "a</s> <s>b", "<s>[INST]hello<|im_end|>\n[INST] the user<|im_end|>\n<|im_start|>"
        talk = (Message(Role.USER, "hello"), Message(Role.ASSISTANT, " the user"))
        assert prompt_of(RunSpec(messages=talk)) == in_one_call(model, text)
        plain = [model.bos_id, *in_one_call(model, said, parse_special=False)]
        assert prompt_of(RunSpec(prompt=said)) == plain
        meant = [model.bos_id, *in_one_call(model, said)]
        assert prompt_of(RunSpec(prompt=said, control_tokens=True)) == meant
        assert prompt_of(RunSpec(prompt=f"<s>{said}", control_tokens=True)) == meant
        spelled = prompt_of(RunSpec(messages=(Message(Role.USER, said),)))
        between = in_one_call(model, said, parse_special=False)
        around = [in_one_call(model, control) for control in ("<s>", "[INST]", "<|im_end|>\n<|im_start|>")]
        assert spelled == [*around[0], *around[1], *between, *around[2]]


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_a_prompt_that_continues_a_message_ends_with_its_text(tmp_path: Path, kind: str) -> None:
    with prompts(write_vocabulary(tmp_path, kind, chat_template=TEMPLATE)) as (model, prompt_of):
        for content in ("the us", " no\n\n", "a </s>.\n"):
            talk = (Message(Role.USER, "hello"), Message(Role.ASSISTANT, content))
            continued = prompt_of(RunSpec(messages=talk, continue_last_message=True))
            before = in_one_call(model, "<s>[INST]hello<|im_end|>\n[INST]")
            assert continued == before + in_one_call(model, content, parse_special=False)


@pytest.mark.req("WORK-3006")
def test_text_that_the_vocabulary_would_turn_into_a_control_token_is_refused(tmp_path: Path) -> None:
    with prompts(write_vocabulary(tmp_path, "spm", extra=("<s",))) as (model, prompt_of):
        assert in_one_call(model, "a<s>b", parse_special=False).count(model.bos_id) == 1
        for prompt in ("a<s>b", "<s>"):
            with pytest.raises(InvalidArgument, match="can't tell the text '<s>'") as refused:
                prompt_of(RunSpec(prompt=prompt))
            assert refused.value.reason is Reason.UNSUPPORTED_CONTENT
        assert prompt_of(RunSpec(prompt="<s>hello", control_tokens=True))[0] == model.bos_id


@pytest.mark.parametrize("pre", ["tekken", "deepseek-llm", "gpt-4o", "falcon", "qwen2", "llama-bpe"])
@pytest.mark.parametrize("character", ["a", "!", " ", "1", "é", "界"])
def test_a_long_run_of_one_kind_neither_ends_the_process_nor_makes_other_tokens(
    tmp_path: Path, pre: str, character: str
) -> None:
    """The library goes deeper with each character: at the usual size of a stack, 27,000 of them end the process."""
    with loaded(write_vocabulary(tmp_path, "bpe", pre=pre)) as model:
        run = character * 60_000
        deep = model.tokenize(run, parse_special=False)
        assert b"".join(map(model.spelled, deep)).decode() == run
        assert deep[:100] == model.tokenize(run[:4000], parse_special=False)[:100]


def test_a_run_that_is_too_long_for_any_stack_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with loaded(write_vocabulary(tmp_path, "bpe", pre="tekken")) as model:
        with pytest.raises(InvalidArgument, match=r"has 100001 letters, .* at most 100000 can be taken") as refused:
            model.tokenize("a" * 100_001, parse_special=False)
        assert refused.value.reason is Reason.UNSUPPORTED_CONTENT
        assert len(model.tokenize("a" * 100_000, parse_special=False)) > 1
