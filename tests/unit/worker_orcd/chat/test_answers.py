"""What a model says comes into the log as text, thoughts and tool calls, whatever tokens it says it with."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llorch.errors import InvalidArgument
from llorch.finish_reason import FinishReason
from support.chat_families import FAMILIES
from support.example_count import examples
from worker_orcd.chat.answers import answers_of, mark_tokens
from worker_orcd.chat.chat_format import ChatFormat, ToolStyle, format_of
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import RunOutput
from worker_orcd.log_entry import LogEntry, RunEnd, ToolCallDelta
from worker_orcd.run_spec import Message, Role, RunSpec, Tool, ToolChoice

HERMES = ChatFormat(ToolStyle.HERMES, thinks=True)
MISTRAL = ChatFormat(ToolStyle.MISTRAL)
MARK_ID = 1000
SPEC = RunSpec(messages=(Message(Role.USER, "hi"),), tools=(Tool("add"),), seed=7)
GPT_OSS = next(family.template for family in FAMILIES if family.name == "gpt_oss")
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def output_of(
    spec: RunSpec, chat_format: ChatFormat, prefix: Sequence[LogEntry] = (), prompt_end: str = ""
) -> RunOutput:
    texts = ["".join(map(chr, (i for entry in prefix for i in entry.token_ids)))]
    answers = answers_of(spec, chat_format, prompt_end, {MARK_ID: "[TOOL_CALLS]"}, texts)
    return RunOutput(EngineRun("a", spec, tuple(prefix)), 3, 4096, lambda: 0.0, Fingerprint(), answers)


def say(
    output: RunOutput, text: str, end: FinishReason | None = FinishReason.EOS
) -> tuple[list[LogEntry], RunEnd | None]:
    """One token per character, whose id is the character's number."""
    log: list[LogEntry] = []
    for character in text:
        output.choices[0].take(ord(character), character)
        step = output.collect()
        log += step.entries if step else ()
    if end is not None:
        output.close(end)
    step = output.collect()
    return [*log, *(step.entries if step else ())], step.end if step else None


def calls_in(log: Sequence[LogEntry]) -> list[ToolCallDelta]:
    """Each put together from its pieces, as clients do it."""
    calls: list[ToolCallDelta] = []
    for piece in (entry.tool_call for entry in log if entry.tool_call):
        if piece.call_id:
            assert piece.index == len(calls)
            calls.append(piece)
        else:
            assert not piece.name
            calls[piece.index] = replace(calls[piece.index], arguments=calls[piece.index].arguments + piece.arguments)
    return calls


def ids(log: Sequence[LogEntry]) -> str:
    return "".join(chr(token_id) for entry in log for token_id in entry.token_ids)


def test_thoughts_calls_and_text_have_entries_of_their_own() -> None:
    said = f"<think>Hm.</think>Yes. {CALL}"
    log, end = say(output_of(SPEC, HERMES), said)
    assert "".join(entry.reasoning or "" for entry in log) == "Hm."
    assert "".join(entry.text for entry in log) == "Yes. "
    assert [(call.index, call.name, call.arguments) for call in calls_in(log)] == [(0, "add", '{"a": 1}')]
    assert ids(log) == said
    assert end is not None
    assert end.choices[0].finish_reason is FinishReason.TOOL_CALLS


def test_an_answer_that_is_cut_off_keeps_its_reason() -> None:
    _, end = say(output_of(replace(SPEC, max_tokens=len(CALL)), HERMES), CALL, None)
    assert end is not None
    assert end.choices[0].finish_reason is FinishReason.LENGTH


def test_a_call_that_never_ended_is_text() -> None:
    log, end = say(output_of(SPEC, HERMES), CALL[:40])
    assert "".join(entry.text for entry in log) == CALL[:40] == ids(log)
    assert end is not None
    assert end.choices[0].finish_reason is FinishReason.EOS


def test_marks_that_are_control_tokens_are_seen() -> None:
    output = output_of(SPEC, MISTRAL)
    output.choices[0].take(MARK_ID, "")
    log, _ = say(output, '[{"name": "add"}]')
    assert [entry.tool_call.name for entry in log if entry.tool_call] == ["add"]
    assert log[0].token_ids[0] == MARK_ID


@pytest.mark.parametrize(
    "spec",
    [replace(SPEC, tools=()), replace(SPEC, tool_choice=ToolChoice.NONE)],
)
def test_without_tools_that_may_be_called_a_call_is_text(spec: RunSpec) -> None:
    log, end = say(output_of(spec, HERMES), CALL)
    assert "".join(entry.text for entry in log) == CALL
    assert end is not None
    assert end.choices[0].finish_reason is FinishReason.EOS


def test_a_model_without_thoughts_and_tools_needs_no_reader() -> None:
    assert answers_of(SPEC, ChatFormat(), "", {}, [""]) is None


def test_an_answer_begins_inside_of_thoughts_where_the_prompt_opened_them() -> None:
    log, _ = say(output_of(SPEC, HERMES, prompt_end="<think>\n"), "Hm.</think>Yes.")
    assert "".join(entry.reasoning or "" for entry in log) == "Hm."
    assert "".join(entry.text for entry in log) == "Yes."


def test_call_ids_depend_on_task_and_number_alone() -> None:
    def call_ids(task: str) -> list[str]:
        log, _ = say(output_of(replace(SPEC, call_key=task), HERMES), CALL + CALL)
        return [call.call_id for call in calls_in(log)]

    assert call_ids("task-7") == call_ids("task-7")
    assert len({*call_ids("task-7"), *call_ids("task-8")}) == 4
    assert all(len(call_id) == 9 and call_id.isalnum() for call_id in call_ids("task-7"))


SAID = st.lists(
    st.sampled_from(
        ["<think>", "</think>", CALL, CALL[:30], CALL[:-16], "x", " ", "\n", "<", "tool_call>", "{}", "}", '"']
    ),
    max_size=6,
).map("".join)


@settings(max_examples=examples(150), deadline=None)
@given(SAID, st.data())
def test_a_resumed_answer_goes_on_as_it_would_have(said: str, data: st.DataObject) -> None:
    whole, whole_end = say(output_of(SPEC, HERMES), said)
    kept = data.draw(st.integers(0, max(0, len(whole) - 1)))
    while kept and not whole[kept].token_ids:  # entries of one step are never parted
        kept -= 1
    prefix = whole[:kept]
    resumed, end = say(output_of(SPEC, HERMES, prefix), said[len(ids(prefix)) :])
    assert [*prefix, *resumed] == whole
    assert end is not None
    assert whole_end is not None
    assert end.choices[0].finish_reason == whole_end.choices[0].finish_reason


def test_marks_are_found_in_a_vocabulary() -> None:
    vocabulary = {"<think>": [1], "</think>": [2], "<tool_call>": [3, 4], "</tool_call>": [5]}
    pieces: list[str | bytes] = ["", "", "</think>", "a", "b", ""]
    assert mark_tokens(HERMES.marks, vocabulary.__getitem__, pieces) == {1: "<think>", 5: "</tool_call>"}


def test_arguments_are_in_the_log_as_they_come() -> None:
    log, _ = say(output_of(SPEC, HERMES), CALL)
    pieces = [entry for entry in log if entry.tool_call]
    assert pieces[0].tool_call == ToolCallDelta(0, calls_in(log)[0].call_id, "add", "{")
    assert [ids([entry]) for entry in pieces[1:]] == list('"a": 1}')
    assert [entry.tool_call for entry in pieces[1:]] == [ToolCallDelta(0, "", "", said) for said in '"a": 1}']
    assert calls_in(log)[0].arguments == '{"a": 1}'


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (FinishReason.EOS, FinishReason.TOOL_CALLS),
        (FinishReason.LENGTH, FinishReason.LENGTH),
        (FinishReason.CANCELLED, FinishReason.CANCELLED),
    ],
)
def test_a_call_that_breaks_off_is_there_as_far_as_it_came(end: FinishReason, expected: FinishReason) -> None:
    said = CALL[: CALL.index("1}")]
    log, ended = say(output_of(SPEC, HERMES), said, end)
    assert [(call.name, call.arguments) for call in calls_in(log)] == [("add", '{"a": ')]
    assert "".join(entry.text for entry in log) == ""
    assert ids(log) == said
    assert ended is not None
    assert ended.choices[0].finish_reason is expected


def test_an_answer_of_gpt_oss_is_thoughts_and_calls() -> None:
    said = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.add"
        '<|message|>{"a": 1}'
    )
    log, end = say(output_of(SPEC, format_of(GPT_OSS)), said)
    assert "".join(entry.reasoning or "" for entry in log) == "Hm."
    assert [(call.name, call.arguments) for call in calls_in(log)] == [("add", '{"a": 1}')]
    assert "".join(entry.text for entry in log) == ""
    assert end is not None
    assert end.choices[0].finish_reason is FinishReason.TOOL_CALLS
    final = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
    log, _ = say(
        output_of(replace(SPEC, tool_choice="add"), format_of(GPT_OSS)), final + '{"name": "add", "arguments": {}}'
    )
    assert [(call.name, call.arguments) for call in calls_in(log)] == [("add", "{}")]


def test_a_call_that_has_to_be_made_is_the_whole_answer_but_for_thoughts() -> None:
    spec = replace(SPEC, tool_choice="add")
    for prompt_end, thoughts in (("", ""), ("", "<think>hm</think>\n"), ("<think>\n", "hm</think>\n\n")):
        output = output_of(spec, HERMES, prompt_end=prompt_end)
        log, end = say(output, thoughts + '{"name": "add", "arguments": {"a": 1}}')
        assert [call.arguments for call in calls_in(log)] == ['{"a": 1}']
        assert end is not None
        assert end.choices[0].finish_reason is FinishReason.TOOL_CALLS
    log, end = say(output_of(spec, HERMES), '{"name": "add", "arg', FinishReason.LENGTH)
    assert "".join(entry.text for entry in log) == '{"name": "add", "arg'


def going_on(content: str, prompt: str) -> tuple[RunSpec, str]:
    """And the prompt as the template has written it."""
    messages = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, content))
    return replace(SPEC, messages=messages, continue_last_message=True), f"[assistant]{prompt}"


@pytest.mark.parametrize(
    ("content", "prompt", "thoughts", "text"),
    [
        ("Yes,", "Yes,", "", " hm.</think> no."),
        ("<think>Well,", "<think>Well,", " hm.", "no."),
        (" <think>Well, ", "<think>Well,", " hm.", "no."),
        ("Well,", "<think>\nWell,", " hm.", "no."),
        ("Well,", "<think>\n\n</think>\n\nWell,", "", " hm.</think> no."),
    ],
)
def test_an_answer_goes_on_in_the_thoughts_that_the_message_before_it_has_begun(
    content: str, prompt: str, thoughts: str, text: str
) -> None:
    spec, shown = going_on(content, prompt)
    log, _ = say(output_of(spec, HERMES, prompt_end=shown), " hm.</think> no.")
    assert "".join(entry.reasoning or "" for entry in log) == thoughts
    assert "".join(entry.text for entry in log) == text


def test_thoughts_may_come_before_a_constrained_answer_only_where_they_have_begun() -> None:
    for content, thinks in (("Well,", False), ("<think>Well,", True), ("<think>Well</think>", False)):
        spec, shown = going_on(content, content)
        answers = answers_of(spec, HERMES, shown, {}, [""])
        assert answers is not None
        assert (answers.thinks, answers.thinking) == (thinks, thinks)


def test_a_message_that_ends_within_a_call_is_not_continued() -> None:
    spec, shown = going_on(CALL[:30], CALL[:30])
    with pytest.raises(InvalidArgument, match="ends within a tool call"):
        answers_of(spec, HERMES, shown, {}, [""])
