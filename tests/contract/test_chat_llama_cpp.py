"""Tools, thoughts and hostile templates with the real engine, over a tiny model that knows a family's template."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import InvalidArgument, Reason
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from support.chat_families import FAMILIES, write_family_model
from support.engine_bench import Bench
from support.gguf_writer import write_gguf
from support.llama_reference import LlamaReference
from support.tiny_models import ENDLESS_TEMPLATE, GENERATING, tiny_model, write_tiny_model
from worker_orcd.chat.chat_format import format_of
from worker_orcd.chat.tools import forced_call_schema
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.run_spec import ConstraintKind, Message, OutputConstraint, Role, RunSpec, Tool, ToolCall

pytestmark = pytest.mark.native

TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools> answer with <tool_call></tool_call>\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}\n{% endfor %}"
    "assistant:{% if enable_thinking %}<think>\n{% endif %}{% if false %}</think>{% endif %}"
)
TOOLS = (
    Tool("add", "Adds.", {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
                          "additionalProperties": False}),
    Tool("stop", "Stops.", {"type": "object", "properties": {}, "additionalProperties": False}),
)  # fmt: skip
MESSAGES = (
    Message(Role.USER, "hello"),
    Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "add", {"a": 1}),)),
    Message(Role.TOOL, "2", tool_call_id="c1"),
)


CPU = DeviceSet(DeviceKind.CPU, ("cpu",))


async def load(path: Path) -> AsyncIterator[Bench]:
    engine = LlamaCppEngine(LlamaCppShape(path, "m", CPU, 2, 1024, threads=1))
    await engine.load()
    try:
        yield Bench(engine)
    finally:
        await engine.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async for loaded in load(write_tiny_model(tmp_path, "llama", chat_template=TEMPLATE)):
        yield loaded


@pytest.mark.req("WORK-3006")
@pytest.mark.parametrize("choice", ["required", "add", "stop"])
async def test_a_tool_that_has_to_be_called_is_called(bench: Bench, choice: str) -> None:
    assert bench.engine.info().capabilities.tools
    schema = forced_call_schema(TOOLS, choice)
    assert schema is not None
    seen = await bench.run(
        "a",
        RunSpec(
            messages=MESSAGES,
            tools=TOOLS,
            tool_choice=choice,
            constraint=OutputConstraint(ConstraintKind.JSON_SCHEMA, schema),
            seed=3,
        ),
    )
    first, *others = [entry.tool_call for entry in seen.log if entry.tool_call]
    assert seen.finish is FinishReason.TOOL_CALLS
    assert first.name in (["add", "stop"] if choice == "required" else [choice])
    assert {(other.index, other.call_id, other.name) for other in others} <= {(0, "", "")}
    arguments = json.loads("".join(piece.arguments for piece in (first, *others)))
    assert arguments in ([{"a": 1}, {"a": 2}] if first.name == "add" else [{}])
    assert seen.text == ""


@pytest.mark.parametrize("family", ["gpt_oss", "magistral", "command_r", "seed_oss", "qwen3"])
async def test_thoughts_are_free_and_the_answer_follows_the_schema_in_the_marks_of_the_family(
    tmp_path: Path, family: str
) -> None:
    """The model says anything at random, and ends its thoughts soon."""
    known = next(each for each in FAMILIES if each.name == family)
    marks = format_of(known.template).thoughts
    path = write_family_model(tmp_path, known)
    with LlamaReference(path, 64) as reference:
        closing = reference.tokens(marks.closing, control_tokens=True)[-1]
        opening = reference.tokens(marks.opening, control_tokens=True)[1 if known.adds_bos else 0]
    spec = RunSpec(
        messages=(Message(Role.USER, "hello"),),
        constraint=OutputConstraint(ConstraintKind.JSON_SCHEMA, json.dumps({"enum": ["yes", "no"]})),
        sampling=Sampling(logit_bias={closing: 4.0, opening: 5.0}),
    )
    thought = 0
    async for bench in load(path):
        for seed in range(6):
            seen = await bench.run(f"a{seed}", replace(spec, seed=seed))
            assert json.loads(seen.text) in ("yes", "no")
            assert seen.finish is FinishReason.EOS
            thought += any(entry.reasoning for entry in seen.log)
        if known.name == "gpt_oss":
            assert bench.engine.info().capabilities.tools
            schema = forced_call_schema(TOOLS, "required")
            assert schema is not None
            must_call = replace(spec, tools=TOOLS, tool_choice="required")
            constraint = OutputConstraint(ConstraintKind.JSON_SCHEMA, schema)
            seen = await bench.run("b", replace(must_call, constraint=constraint))
            assert next(entry.tool_call.name for entry in seen.log if entry.tool_call) in ("add", "stop")
            assert (seen.text, seen.finish) == ("", FinishReason.TOOL_CALLS)
    assert thought > 0


async def test_what_ends_an_answer_of_gpt_oss_is_a_call_or_a_return_and_no_message(tmp_path: Path) -> None:
    """What is relied on: the library takes `<|end|>` from the tokens that end text, and shows those of headers."""
    family = next(each for each in FAMILIES if each.name == "gpt_oss")
    path = write_family_model(tmp_path, family)
    model = Model(load_native(), LlamaCppShape(path, "m", CPU, 1, 256, threads=1), lambda: True)
    try:
        ids = {text: model.tokenize(text, parse_special=True)[0] for text in family.control_tokens}
        assert {text for text, token_id in ids.items() if token_id in model.ends_text} == {
            "<|return|>",
            "<|call|>",
            "<|endoftext|>",
        }
        shown = {text for text, token_id in ids.items() if model.pieces[token_id] == text}
        assert shown == {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>"}
    finally:
        model.close()


async def test_template_values_reach_the_template_and_open_the_thoughts(bench: Bench) -> None:
    spec = RunSpec(messages=MESSAGES, template_values={"enable_thinking": True}, max_tokens=12, ignore_eos=True)
    seen = await bench.run("a", spec)
    assert seen.text == ""
    assert len("".join(entry.reasoning or "" for entry in seen.log)) > 0
    plain = await bench.run("b", RunSpec(messages=MESSAGES, max_tokens=12, ignore_eos=True))
    assert plain.text


@pytest.mark.parametrize("control_tokens", [False, True])
@pytest.mark.parametrize("prompt", ["<|im_start|>user\nhi<|im_end|>\n", "<s>hello", "no such thing"])
async def test_control_tokens_of_a_plain_prompt_are_what_the_caller_says(
    tmp_path: Path, prompt: str, control_tokens: bool
) -> None:
    path = write_tiny_model(tmp_path, "llama")
    with LlamaReference(path, 256) as reference:
        plain, meant = reference.tokens(prompt), reference.tokens(prompt, control_tokens=True)
    if control_tokens and prompt.startswith("<s>"):
        meant = meant[1:]  # the reference puts a second one before it
    async for bench in load(path):
        seen = await bench.run("a", RunSpec(prompt=prompt, max_tokens=1, control_tokens=control_tokens))
        assert seen.end is not None
        assert seen.end.tokens_in == len(meant if control_tokens else plain)


GOING_ON = (Message(Role.USER, "hello"), Message(Role.ASSISTANT, "now they were <|im_end|>so "))
GOING_ON_TEXT = "user: helloassistant: now they were <|im_end|>so "


async def test_a_continued_message_is_as_a_plain_prompt_that_ends_with_it(bench: Bench) -> None:
    greedy = RunSpec(messages=GOING_ON, max_tokens=24, ignore_eos=True, continue_last_message=True)
    going_on = await bench.run("a", greedy)
    plain = await bench.run("b", replace(greedy, messages=(), prompt=GOING_ON_TEXT, continue_last_message=False))
    assert going_on.end is not None
    assert plain.end is not None
    assert (going_on.end.tokens_in, going_on.token_ids) == (plain.end.tokens_in, plain.token_ids)
    assert going_on.text == plain.text != ""
    half = going_on.log[: len(going_on.log) // 2]
    resumed = await bench.run("c", greedy, half)
    assert [*half, *resumed.log] == going_on.log
    new = await bench.run("d", replace(greedy, continue_last_message=False))
    assert new.end is not None
    assert new.end.tokens_in > going_on.end.tokens_in


async def test_a_message_that_has_begun_to_think_goes_on_thinking(bench: Bench) -> None:
    thoughts = (Message(Role.USER, "hello"), Message(Role.ASSISTANT, "<think>now they were"))
    going_on = await bench.run(
        "a", RunSpec(messages=thoughts, max_tokens=12, ignore_eos=True, continue_last_message=True)
    )
    assert going_on.text == ""
    assert "".join(entry.reasoning or "" for entry in going_on.log)


async def test_a_constraint_holds_for_what_continues_a_message(bench: Bench) -> None:
    schema = OutputConstraint(ConstraintKind.JSON_SCHEMA, json.dumps({"enum": ["yes", "no"]}))
    seen = await bench.run("a", RunSpec(messages=GOING_ON, constraint=schema, seed=3, continue_last_message=True))
    assert json.loads(seen.text) in ("yes", "no")


async def test_tools_make_the_prompt_longer(bench: Bench) -> None:
    with_tools = await bench.run("a", RunSpec(messages=MESSAGES, tools=TOOLS, max_tokens=1))
    without = await bench.run("b", RunSpec(messages=MESSAGES, tools=TOOLS, tool_choice="none", max_tokens=1))
    assert with_tools.end is not None
    assert without.end is not None
    assert with_tools.end.tokens_in > without.end.tokens_in + 50


async def test_an_endless_template_is_refused_and_the_worker_lives_on(tmp_path: Path) -> None:
    async for bench in load(write_tiny_model(tmp_path, "llama", chat_template=ENDLESS_TEMPLATE)):
        with pytest.raises(InvalidArgument, match="took longer") as refused:
            await bench.submit("a", RunSpec(messages=(Message(Role.USER, "x"),)))
        assert refused.value.reason is Reason.INVALID_TEMPLATE
        assert (await bench.run("b", RunSpec(prompt="hello", max_tokens=3, ignore_eos=True))).text


async def test_a_template_for_tools_is_used_for_those_who_have_some(tmp_path: Path) -> None:
    metadata, tensors = tiny_model("llama")
    write_gguf(tmp_path / "m.gguf", metadata | {"tokenizer.chat_template.tool_use": TEMPLATE}, tensors)
    async for bench in load(tmp_path / "m.gguf"):
        assert bench.engine.info().capabilities.tools
        with_tools = await bench.run("a", RunSpec(messages=MESSAGES, tools=TOOLS, max_tokens=1))
        without = await bench.run("b", RunSpec(messages=MESSAGES, max_tokens=1))
        assert with_tools.end is not None
        assert without.end is not None
        assert with_tools.end.tokens_in > without.end.tokens_in + 50


@pytest.mark.parametrize("architecture", GENERATING)
async def test_models_of_every_kind_embed(tmp_path: Path, architecture: str) -> None:
    async for bench in load(write_tiny_model(tmp_path, architecture)):
        embedded = await bench.engine.embed(["hello world", "who are you", "hello world"])
        first, other, again = embedded.vectors
        assert sum(a * b for a, b in zip(first, again, strict=True)) == pytest.approx(1, abs=1e-3)
        assert sum(a * b for a, b in zip(first, other, strict=True)) < 0.999
