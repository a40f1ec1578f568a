"""Chat templates in the manner of the families that are most used with GGUF files, and what each of them needs.

The templates are in the folder of the same name: written for these tests, with the marks, the control tokens and the
constructs of the families. Vocabularies are tiny, and of the family's kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.tiny_models import WORDS
from support.tiny_vocabularies import Metadata, shown_bytes, write_zeros

FOLDER = Path(__file__).with_suffix("")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()[]{}<>|/\\_-+*=&%$#@~^`"


@dataclass(frozen=True, slots=True)
class Family:
    """`pre` is how texts are split before byte pairs are merged; empty for a vocabulary of sentence pieces. `control`
    are further control tokens, `defined` tokens that are text as well. `values` are those that templates of this
    family know, one prompt each.

    What its template takes: content of several parts for `part_roles`, and nothing but parts with `parts_alone`;
    `call_content` in an assistant's message that has calls alone; arguments of calls as text with
    `arguments_are_text`. `refuses` are the inputs that it refuses by itself.
    """

    name: str
    pre: str
    bos: str
    eos: str
    control: tuple[str, ...] = ()
    defined: tuple[str, ...] = ()
    adds_bos: bool = True
    adds_space: bool = True
    values: tuple[Mapping[str, object], ...] = ()
    part_roles: frozenset[str] = frozenset()
    parts_alone: bool = False
    call_content: str | None = ""
    arguments_are_text: bool = False
    refuses: frozenset[str] = frozenset()

    @property
    def template(self) -> str:
        return (FOLDER / f"{self.name}.jinja").read_text()

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return (self.bos, self.eos, *self.control)


_CHATML = ("<|im_start|>", "<|im_end|>")
_TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_THINK = ("<think>", "</think>")
_THINKING = ({"enable_thinking": True}, {"enable_thinking": False})
_DEEPSEEK_MARKS = tuple(
    f"<｜tool▁{what}｜>"
    for what in (
        "calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep",
        "outputs▁begin", "outputs▁end", "output▁begin", "output▁end",
    )
)  # fmt: skip
_DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
_USERS_AND_ASSISTANTS = frozenset({"user", "assistant"})
_CALLS = frozenset({"tools", "said_and_called", "two_calls"})
_TURNS_ALONE = _CALLS | {"system"}

FAMILIES = (
    Family("llama2", "", "<s>", "</s>", refuses=_CALLS),
    Family(
        "llama3", "llama-bpe", "<|begin_of_text|>", "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"),
        values=({"date_string": "1 Jan 2025", "tools_in_user_message": False},), refuses=frozenset({"two_calls"}),
    ),
    Family("mistral1", "", "<s>", "</s>", refuses=_TURNS_ALONE),
    Family(
        "mistral3", "", "<s>", "</s>",
        ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
         "[/TOOL_RESULTS]"),
    ),
    Family(
        "mistral7_tekken", "tekken", "<s>", "</s>",
        ("[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
         "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CONTENT]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        part_roles=frozenset({"user"}),
    ),
    Family(
        "magistral", "tekken", "<s>", "</s>",
        ("[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
         "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]"),
        part_roles=_USERS_AND_ASSISTANTS,
    ),
    Family("qwen25", "qwen2", "<|endoftext|>", "<|im_end|>", _CHATML[:1], _TOOL_TAGS, adds_bos=False),
    Family(
        "qwen3", "qwen2", "<|endoftext|>", "<|im_end|>", _CHATML[:1], (*_TOOL_TAGS, *_THINK), adds_bos=False,
        values=_THINKING,
    ),
    Family("qwen3_coder", "qwen2", "<|endoftext|>", "<|im_end|>", _CHATML[:1], _TOOL_TAGS, adds_bos=False),
    Family(
        "deepseek_r1", "deepseek-r1-qwen", *_DEEPSEEK, ("<｜User｜>", "<｜Assistant｜>"), (*_DEEPSEEK_MARKS, *_THINK),
        call_content=None, arguments_are_text=True,
    ),
    Family(
        "deepseek3", "deepseek-v3", *_DEEPSEEK, ("<｜User｜>", "<｜Assistant｜>"), (*_DEEPSEEK_MARKS, *_THINK),
        values=({"thinking": True},), arguments_are_text=True,
    ),
    Family(
        "gemma2", "", "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), adds_space=False, refuses=_TURNS_ALONE
    ),
    Family(
        "gemma3", "", "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>", "<start_of_image>"), adds_space=False,
        part_roles=_USERS_AND_ASSISTANTS, refuses=_CALLS,
    ),
    Family("phi3", "", "<s>", "<|endoftext|>", ("</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    Family("phi4", "dbrx", "<|endoftext|>", "<|im_end|>", ("<|im_start|>", "<|im_sep|>"), adds_bos=False),
    Family(
        "gpt_oss", "gpt-4o", "<|startoftext|>", "<|return|>",
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|endoftext|>"),
        adds_bos=False, values=({"reasoning_effort": "high"}, {"model_identity": "You are a cat."}),
    ),
    Family("hermes", "llama-bpe", "<|begin_of_text|>", "<|im_end|>", _CHATML[:1], _TOOL_TAGS),
    Family("chatml", "gpt-2", "<|endoftext|>", "<|im_end|>", _CHATML[:1], adds_bos=False),
    Family(
        "command_r", "command-r", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>",
        ("<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_ACTION|>",
         "<|END_ACTION|>", "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>"),
    ),
    Family(
        "granite", "refact", "<|end_of_text|>", "<|end_of_text|>", ("<|start_of_role|>", "<|end_of_role|>"),
        ("<|tool_call|>",), adds_bos=False,
        values=(
            {"thinking": True}, {"controls": {"length": "short"}}, {"documents": [{"doc_id": 1, "text": "It is so."}]}
        ),
    ),
    Family("smollm2", "smollm", "<|im_start|>", "<|im_end|>", adds_bos=False),
    Family(
        "smollm3", "smaug-bpe", "<|begin_of_text|>", "<|im_end|>", _CHATML[:1], (*_TOOL_TAGS, *_THINK), adds_bos=False,
        values=_THINKING,
    ),
    Family(
        "glm4", "chatglm-bpe", "[gMASK]", "<|endoftext|>",
        ("<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"), (*_TOOL_TAGS, *_THINK), adds_bos=False,
        values=_THINKING, part_roles=_USERS_AND_ASSISTANTS | {"system"},
    ),
    Family(
        "smolvlm", "smollm", "<|im_start|>", "<end_of_utterance>", ("<image>",), adds_bos=False,
        part_roles=_USERS_AND_ASSISTANTS | {"system", "tool"}, parts_alone=True,
    ),
    Family("yi", "", "<|startoftext|>", "<|im_end|>", _CHATML[:1], adds_bos=False),
    Family("zephyr", "", "<s>", "</s>"),
    Family("falcon3", "falcon3", "<|begin_of_text|>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>"),
           adds_bos=False),
    Family("nemotron", "gpt-2", "<s>", "</s>", ("<extra_id_0>", "<extra_id_1>"), _THINK),
    Family(
        "seed_oss", "seed-coder", "<seed:bos>", "<seed:eos>", (), ("<seed:think>", "</seed:think>"), adds_bos=False,
        values=({"thinking_budget": 512}, {"thinking_budget": 0}),
    ),
)  # fmt: skip


def write_family_model(folder: Path, family: Family) -> Path:
    """A model that can be loaded, with the family's vocabulary and template."""
    vocabulary = _byte_pairs(family) if family.pre else _sentence_pieces(family)
    tokens = vocabulary["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    own: Metadata = {
        "tokenizer.ggml.bos_token_id": tokens.index(family.bos),
        "tokenizer.ggml.eos_token_id": tokens.index(family.eos),
        "tokenizer.ggml.add_bos_token": family.adds_bos,
        "tokenizer.chat_template": family.template,
    }
    return write_zeros(folder / f"{family.name}.gguf", family.name, vocabulary | own)


def _special(family: Family) -> list[tuple[str, int]]:
    control = dict.fromkeys(family.control_tokens, _CONTROL)
    return [*control.items(), *dict.fromkeys(family.defined, _USER_DEFINED).items()]


def _sentence_pieces(family: Family) -> Metadata:
    byte_tokens = [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    beginnings = dict.fromkeys(f"▁{word[:end]}" for word in WORDS for end in range(len(word) + 1))
    normal = [(text, _NORMAL) for text in (*_LETTERS, *beginnings)]
    tokens = [("<unk>", _UNKNOWN), *_special(family), *byte_tokens, *normal]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind in tokens],
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": family.adds_space,
    }


def _byte_pairs(family: Family) -> Metadata:
    """Every text goes by bytes; a word is merged letter by letter."""
    pairs: dict[tuple[str, str], None] = {}
    for word in WORDS:
        for whole in (f"Ġ{word}", word):
            pairs |= {(whole[:end], whole[end]): None for end in range(1, len(whole))}
    merged = dict.fromkeys("".join(pair) for pair in pairs)
    tokens = [(text, _NORMAL) for text in (*shown_bytes(), *merged)] + _special(family)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": family.pre,
        "tokenizer.ggml.tokens": [text for text, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in pairs],
    }
