"""What an answer means must not depend on the pieces in which it comes."""

import json
import random
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.example_count import examples
from worker_orcd.chat import thought_marks
from worker_orcd.chat.answer_reader import AnswerReader, Content, Said
from worker_orcd.chat.chat_format import ChatFormat, ToolStyle
from worker_orcd.chat.tool_syntax import Begun, Found, NoCall
from worker_orcd.log_entry import ToolCallDelta


def thoughts_of(sign: str) -> thought_marks.ThoughtMarks:
    found = thought_marks.marks_in(sign)
    assert found is not None
    return found


HERMES = ChatFormat(ToolStyle.HERMES, thinks=True)
LLAMA3 = ChatFormat(ToolStyle.LLAMA3)
MISTRAL = ChatFormat(ToolStyle.MISTRAL)
DEEPSEEK = ChatFormat(ToolStyle.DEEPSEEK, thinks=True)
MAGISTRAL = ChatFormat(ToolStyle.MISTRAL, thinks=True, thoughts=thoughts_of("[/THINK]"))
COMMAND = ChatFormat(thinks=True, thoughts=thoughts_of("<|END_THINKING|>"))
HARMONY = ChatFormat(ToolStyle.HARMONY, thinks=True, thoughts=thought_marks.HARMONY)
TOOLS = ("weather", "add")

DEEPSEEK_GAP = f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{' ' * 300}{{}}<｜tool▁call▁end｜>"
DEEPSEEK_CALL = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>'


def reader(chat_format: ChatFormat, *, tools: tuple[str, ...] = TOOLS, thinking: bool = False) -> AnswerReader:
    return AnswerReader(chat_format, tools=tools, thinking=thinking, call_id="call{}".format)


def joined(contents: list[Content]) -> list[Content]:
    """Text to one text, the pieces of a call to one call, as clients put them together."""
    whole: list[Content] = []
    for content in contents:
        last = whole[-1] if whole else None
        if isinstance(content, Said) and isinstance(last, Said) and content.is_thought == last.is_thought:
            whole[-1] = Said(last.text + content.text, content.is_thought)
        elif isinstance(content, ToolCallDelta) and isinstance(last, ToolCallDelta) and content.index == last.index:
            assert (content.call_id, content.name) == ("", "")
            whole[-1] = replace(last, arguments=last.arguments + content.arguments)
        else:
            whole.append(content)
    return whole


def read(source: AnswerReader, pieces: list[str]) -> list[Content]:
    contents: list[Content] = []
    for piece in pieces:
        contents += source.read(piece) or []
    return joined(contents + source.flush())


def call(index: int, name: str, arguments: str) -> ToolCallDelta:
    return ToolCallDelta(index, f"call{index}", name, arguments)


CASES = [
    pytest.param(HERMES, "Hello <b>you</b>.", [Said("Hello <b>you</b>.")], id="text"),
    pytest.param(HERMES, " \n\nHello", [Said(" \n\nHello")], id="white-space-at-the-start"),
    pytest.param(
        HERMES, "<think>\nHm.\n</think>\n\nYes.", [Said("Hm.\n", is_thought=True), Said("Yes.")], id="thoughts"
    ),
    pytest.param(HERMES, "<think>Hm", [Said("Hm", is_thought=True)], id="thoughts-that-stop"),
    pytest.param(HERMES, "Say <think> aloud", [Said("Say <think> aloud")], id="no-thoughts-in-the-middle"),
    pytest.param(
        HERMES,
        'Wait.\n<tool_call>\n{"name": "add", "arguments": {"a": "</tool_call>", "b": [1, {}]}}\n</tool_call>\n'
        '<tool_call>{"name": "weather"}</tool_call> Done',
        [
            Said("Wait.\n"),
            call(0, "add", '{"a": "</tool_call>", "b": [1, {}]}'),
            call(1, "weather", "{}"),
            Said("Done"),
        ],
        id="hermes-calls",
    ),
    pytest.param(
        HERMES, '<tool_call>{"name": "add", "arguments": {"a": 1}}', [call(0, "add", '{"a": 1}')], id="no-closing"
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": 1',
        [call(0, "add", '{"a": 1')],
        id="call-that-stops",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": ',
        [Said('<tool_call>{"name": "add", "arguments": ')],
        id="call-that-stops-before-its-arguments",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "subtract", "arguments": {"a": 1',
        [Said('<tool_call>{"name": "subtract", "arguments": {"a": 1')],
        id="call-of-an-unknown-tool-that-stops",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "subtract", "arguments": {"a":1}}</tool_call>',
        [call(0, "subtract", '{"a": 1}')],
        id="call-of-an-unknown-tool",
    ),
    pytest.param(
        HERMES,
        '<tool_call>[{"name": "add", "arguments": {"a":1}}, {"name": "weather", "parameters": {}}]\n</tool_call> Done',
        [call(0, "add", '{"a":1}'), call(1, "weather", "{}"), Said("Done")],
        id="hermes-list",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"id": 12, "type": "function", "function": {"name": "add", "arguments": {"a": {"b": "}"}}, "x": [1]'
        "}}</tool_call>Done",
        [call(0, "add", '{"a": {"b": "}"}}'), Said("Done")],
        id="call-within-objects",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"arguments": {"a":1}, "name": "add"}</tool_call>',
        [call(0, "add", '{"a": 1}')],
        id="name-after-the-arguments",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>And so on, without a brace.',
        [call(0, "add", '{"a": 1}'), Said("And so on, without a brace.")],
        id="brace-that-is-missing",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": 1}}}</tool_call>',
        [call(0, "add", '{"a": 1}'), Said("}</tool_call>")],
        id="brace-too-many",
    ),
    pytest.param(
        HERMES,
        '<tool_call>\n{"name": add, "arguments": {}}</tool_call> <tool_call>{"name": "add"}</tool_call>',
        [Said('<tool_call>\n{"name": add, "arguments": {}}</tool_call> '), call(0, "add", "{}")],
        id="malformed-call",
    ),
    pytest.param(HERMES, '<tool_call>{"a": 1}</tool_call>', [Said('<tool_call>{"a": 1}</tool_call>')], id="no-name"),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
        [call(0, "add", '{"a": NaN}')],
        id="not-a-number",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>',
        [call(0, "add", '{"a": 1}')],
        id="arguments-as-text",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": "x\ny"}}</tool_call>',
        [call(0, "add", '{"a": "x\\ny"}')],
        id="line-end-in-a-string",
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>',
        [call(0, "add", '{"a": "\\ud800"}')],
        id="half-a-character",
    ),
    pytest.param(LLAMA3, '{"name": "add", "parameters": {"a": 1}}', [call(0, "add", '{"a": 1}')], id="llama-bare"),
    pytest.param(
        LLAMA3,
        '<|python_tag|>{"name": "add", "parameters": {}}; {"name": "weather", "parameters": {"at": "x"}}',
        [call(0, "add", "{}"), call(1, "weather", '{"at": "x"}')],
        id="llama-two",
    ),
    pytest.param(
        LLAMA3,
        '{"type": "function", "function": "add", "parameters": {"a": 1}} done',
        [call(0, "add", '{"a": 1}'), Said("done")],
        id="llama-function-as-name",
    ),
    pytest.param(LLAMA3, '{"name": "Ann", "age": 3}', [Said('{"name": "Ann", "age": 3}')], id="llama-json-answer"),
    pytest.param(LLAMA3, "{x} is a set, {} too", [Said("{x} is a set, {} too")], id="llama-braces"),
    pytest.param(LLAMA3, "<|python_tag|>print(1)\n{}", [Said("<|python_tag|>print(1)\n{}")], id="llama-code-is-text"),
    pytest.param(
        LLAMA3,
        '{ <|python_tag|>{"name": "add"}',
        [Said("{ "), call(0, "add", "{}")],
        id="llama-mark-after-a-brace",
    ),
    pytest.param(
        MISTRAL,
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}, {"name": "weather", "arguments": {}}]',
        [call(0, "add", '{"a": 1}'), call(1, "weather", "{}")],
        id="mistral-list",
    ),
    pytest.param(
        MISTRAL,
        'Ok. [TOOL_CALLS]add[CALL_ID]abc123DEF[ARGS]{"a": 1}[TOOL_CALLS]weather{"at": "x"}',
        [Said("Ok. "), call(0, "add", '{"a": 1}'), call(1, "weather", '{"at": "x"}')],
        id="mistral-names",
    ),
    pytest.param(
        MISTRAL,
        '[TOOL_CALLS][{"name": "add"}, 3]',
        [call(0, "add", "{}"), Said(", 3]")],
        id="mistral-half-a-list",
    ),
    pytest.param(MISTRAL, "[TOOL_CALLS]", [Said("[TOOL_CALLS]")], id="mistral-mark-alone"),
    pytest.param(
        DEEPSEEK,
        f"<think>\n</think>\n<｜tool▁calls▁begin｜>{DEEPSEEK_CALL}\n"
        "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [call(0, "add", '{"a": 1}'), call(1, "weather", "{}")],
        id="deepseek",
    ),
    pytest.param(
        HERMES,
        "I read.\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n"
        "if x:\n    print('</parameter>')\n\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call><function=weather></function></tool_call> Done",
        [
            Said("I read.\n"),
            call(0, "add", '{"a": 1, "b": "if x:\\n    print(\'</parameter>\')\\n"}'),
            call(1, "weather", "{}"),
            Said("Done"),
        ],
        id="qwen-coder-tags",
    ),
    pytest.param(
        HERMES,
        "<tool_call><function=add><parameter=a>1</parameter>",
        [Said("<tool_call><function=add><parameter=a>1</parameter>")],
        id="tags-that-stop",
    ),
    pytest.param(
        LLAMA3,
        '<|python_tag|>weather.call(at="a) \\"b\\"", days=[1, (2)], full=True)',
        [call(0, "weather", '{"at": "a) \\"b\\"", "days": [1, 2], "full": true}')],
        id="llama-python-call",
    ),
    pytest.param(
        LLAMA3,
        "<|python_tag|>weather.call(open('/etc/passwd'))",
        [Said("<|python_tag|>weather.call(open('/etc/passwd'))")],
        id="llama-python-that-is-no-call-of-values",
    ),
    pytest.param(
        LLAMA3,
        '<|python_tag|>add.call(x={1, 2}, y=b"a") or weather.call("here") and so on)',
        [Said('<|python_tag|>add.call(x={1, 2}, y=b"a") or weather.call("here") and so on)')],
        id="llama-python-values-that-are-no-json",
    ),
    pytest.param(
        HERMES,
        "<tool_call><function=bad name>x</function></tool_call> and",
        [Said("<tool_call><function=bad name>x</function></tool_call> and")],
        id="tags-with-no-name",
    ),
    pytest.param(DEEPSEEK, DEEPSEEK_GAP, [Said(DEEPSEEK_GAP)], id="deepseek-endless-white-space"),
    pytest.param(
        MISTRAL,
        '[TOOL_CALLS]{"name": "add", "arguments": {"a": "[TOOL_CALLS]"}} then',
        [call(0, "add", '{"a": "[TOOL_CALLS]"}'), Said("then")],
        id="mistral-object",
    ),
    pytest.param(
        DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        '{"a": "<｜tool▁call▁end｜><｜tool▁calls▁end｜>```"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [call(0, "add", '{"a": "<｜tool▁call▁end｜><｜tool▁calls▁end｜>```"}')],
        id="deepseek-marks-in-arguments",
    ),
    pytest.param(
        DEEPSEEK,
        f"<｜tool▁calls▁begin｜>{DEEPSEEK_CALL}<｜tool▁call▁begin｜>so<｜tool▁calls▁end｜>",
        [call(0, "add", '{"a": 1}'), Said("<｜tool▁call▁begin｜>so<｜tool▁calls▁end｜>")],
        id="deepseek-half-of-two",
    ),
    pytest.param(
        MAGISTRAL,
        '[THINK]Hm [TOOL_CALLS].[/THINK]So:[TOOL_CALLS]add[ARGS]{"a": 1}',
        [Said("Hm [TOOL_CALLS].", is_thought=True), Said("So:"), call(0, "add", '{"a": 1}')],
        id="magistral",
    ),
    pytest.param(
        COMMAND,
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
        [Said("Hm.", is_thought=True), Said("Yes.")],
        id="command",
    ),
    pytest.param(COMMAND, "<|START_RESPONSE|> Yes.", [Said(" Yes.")], id="command-without-thoughts"),
    pytest.param(
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes <b>.",
        [Said("Hm.", is_thought=True), Said("Yes <b>.")],
        id="harmony",
    ),
    pytest.param(
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
        '{"a":1, "b": "<|call|>"}',
        [Said("Hm.", is_thought=True), Said("I look."), call(0, "add", '{"a":1, "b": "<|call|>"}')],
        id="harmony-call",
    ),
    pytest.param(
        HARMONY,
        ' to=functions.add<|channel|>commentary json<|message|>{"a": 1',
        [call(0, "add", '{"a": 1')],
        id="harmony-recipient-first",
    ),
    pytest.param(
        HARMONY,
        '<|start|>assistant to=functions.subtract<|channel|>commentary<|message|>{"a":1}',
        [call(0, "subtract", '{"a": 1}')],
        id="harmony-unknown-tool",
    ),
    pytest.param(
        HARMONY,
        "<|channel|>commentary to=python<|message|>{}",
        [Said("<|channel|>commentary to=python<|message|>{}")],
        id="harmony-tool-that-is-no-function",
    ),
    pytest.param(
        HARMONY,
        "<|channel|>commentary to=functions.add<|message|>add(1)",
        [Said("<|channel|>commentary to=functions.add<|message|>add(1)")],
        id="harmony-call-that-is-no-json",
    ),
    pytest.param(HARMONY, "Yes, to=you.", [Said("Yes, to=you.")], id="harmony-without-a-header"),
    pytest.param(HARMONY, "<|channel|>final", [Said("<|channel|>final")], id="harmony-header-that-stops"),
    pytest.param(
        DEEPSEEK,
        "<｜tool▁calls▁begin｜>well<｜tool▁calls▁end｜>",
        [Said("<｜tool▁calls▁begin｜>well<｜tool▁calls▁end｜>")],
        id="deepseek-malformed",
    ),
]


@pytest.mark.parametrize(("chat_format", "text", "expected"), CASES)
def test_an_answer_is_read(chat_format: ChatFormat, text: str, expected: list[Content]) -> None:
    assert read(reader(chat_format), [text]) == expected


@pytest.mark.parametrize(("chat_format", "text", "expected"), CASES)
def test_every_split_in_two_and_single_characters_read_the_same(
    chat_format: ChatFormat, text: str, expected: list[Content]
) -> None:
    assert read(reader(chat_format), list(text)) == expected
    for at in range(1, len(text)):
        assert read(reader(chat_format), [text[:at], text[at:]]) == expected


@pytest.mark.parametrize(("chat_format", "text", "expected"), CASES)
def test_random_cuts_read_the_same(chat_format: ChatFormat, text: str, expected: list[Content]) -> None:
    source = random.Random(text)  # noqa: S311  which cuts is no secret
    for _ in range(examples(40)):
        cuts = sorted(source.choices(range(len(text) + 1), k=source.randint(1, len(text))))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert read(reader(chat_format), pieces) == expected


FRAGMENTS = st.sampled_from(
    [
        "a", " ", "\n", "{", "}", "[", "]", '"', ",", ":", ";", "<", ">", "\\",
        "<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "add",
        '{"name": "add", "arguments": {"a": 1}}', '{"name": "add", "parameters": {}}', '"name"', '{"a": "',
        "<｜tool▁calls▁begin｜>", DEEPSEEK_CALL, "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>",
        '"arguments": {', '"function": {"name": "weather"', "<|start|>assistant", "<|channel|>analysis", "<|message|>",
        "<|end|>", "<|channel|>commentary to=functions.add", " to=functions.weather", "<|START_RESPONSE|>", "[/THINK]",
    ]
)  # fmt: skip
FORMATS = st.sampled_from(
    [HERMES, LLAMA3, MISTRAL, DEEPSEEK, MAGISTRAL, COMMAND, HARMONY, ChatFormat(ToolStyle.LLAMA3, thinks=True)]
)


@pytest.mark.req("WORK-3006")
@settings(max_examples=examples(400), deadline=None)
@given(FORMATS, st.lists(FRAGMENTS, max_size=14), st.booleans(), st.data())
def test_any_pieces_give_the_same_and_nothing_is_lost(
    chat_format: ChatFormat, fragments: list[str], thinking: bool, data: st.DataObject
) -> None:
    text = "".join(fragments)
    whole = read(reader(chat_format, thinking=thinking), [text])
    assert read(reader(chat_format, thinking=thinking), list(text)) == whole
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(reader(chat_format, thinking=thinking), pieces) == whole
    if not any(isinstance(content, ToolCallDelta) for content in whole):
        said = "".join(content.text for content in whole if isinstance(content, Said))
        thoughts = chat_format.thoughts
        headers = ("<|start|>assistant", "<|channel|>analysis", "<|message|>") if chat_format.has_headers else ()
        marks = (thoughts.opening, thoughts.closing, thoughts.answer, thoughts.answer_end, *headers)
        assert _bare(said, marks) == _bare(text, marks)


def _bare(text: str, marks: tuple[str, ...]) -> str:
    """Without the marks of thoughts and without white space, which is dropped after marks."""
    for mark in marks:
        text = text.replace(mark, "")
    return "".join(text.split())


@settings(max_examples=examples(200), deadline=None)
@given(FORMATS, st.lists(FRAGMENTS, max_size=14), st.data())
def test_a_reader_that_replays_what_was_released_goes_on_alike(
    chat_format: ChatFormat, fragments: list[str], data: st.DataObject
) -> None:
    first = reader(chat_format)
    contents: list[Content] = []
    released_at = 0
    for at, fragment in enumerate(fragments):
        said = first.read(fragment)
        if said is not None:
            contents.append(Said(""))
            contents += said
            released_at = at + 1
    again = reader(chat_format)
    assert again.read("".join(fragments[:released_at])) is not None
    rest = fragments[released_at:]
    assert read(again, rest) == joined(first.flush()) or not rest


@given(st.text(max_size=200))
@settings(deadline=None)
def test_what_a_whole_call_says_is_json(text: str) -> None:
    for chat_format in (HERMES, LLAMA3, MISTRAL, DEEPSEEK):
        for content in read(reader(chat_format, tools=("other",)), [chat_format.tool_opening, text]):
            if isinstance(content, ToolCallDelta):
                assert isinstance(json.loads(content.arguments), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
WRITTEN = [
    (HERMES, '<tool_call>{"name": "add", "arguments": %s}</tool_call>'),
    (LLAMA3, '{"name": "add", "parameters": %s}'),
    (MISTRAL, '[TOOL_CALLS][{"name": "add", "arguments": %s, "id": "x"}]'),
    (MISTRAL, "[TOOL_CALLS]add[ARGS]%s"),
    (DEEPSEEK, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>%s<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    (HARMONY, "<|channel|>commentary to=functions.add<|message|>%s"),
]


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=3), st.booleans(), st.sampled_from([None, 0, 2]), st.data())
@settings(max_examples=examples(60), deadline=None)
def test_arguments_in_any_pieces_are_those_that_the_model_gave(
    given_to: dict[str, object], ensure_ascii: bool, indent: int | None, data: st.DataObject
) -> None:
    written = json.dumps(given_to, ensure_ascii=ensure_ascii, indent=indent)
    for chat_format, form in WRITTEN:
        text = form % written
        cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        contents = read(reader(chat_format), pieces)
        assert [type(content) for content in contents] == [ToolCallDelta]
        assert isinstance(contents[0], ToolCallDelta)
        assert contents[0].arguments == written
        assert json.loads(contents[0].arguments) == given_to


@pytest.mark.parametrize(("chat_format", "form"), WRITTEN)
def test_arguments_are_told_as_they_come(chat_format: ChatFormat, form: str) -> None:
    source = reader(chat_format)
    before, _, after = form.partition("%s")
    assert source.read(before) is None or chat_format is LLAMA3
    assert source.read('{"text": "one') == [call(0, "add", '{"text": "one')]
    assert source.read(" two\n") == [ToolCallDelta(0, "", "", " two\\n")]
    assert source.read(' three"}') == [ToolCallDelta(0, "", "", ' three"}')]
    assert joined([*(source.read(after) or []), *source.flush()]) == []
    assert source.calls == 1


def test_without_tools_calls_are_text() -> None:
    text = '<tool_call>{"name": "add"}</tool_call>'
    assert read(reader(HERMES, tools=()), [text]) == [Said(text)]


def test_an_answer_that_begins_inside_of_thoughts_is_read_from_there() -> None:
    assert read(reader(HERMES, thinking=True), ["\nHm.</think>\nYes."]) == [Said("Hm.", is_thought=True), Said("Yes.")]


def test_text_comes_as_soon_as_it_is_known() -> None:
    source = reader(HERMES)
    assert source.read("Hello") == [Said("Hello")]
    assert source.read(" <tool") is None
    assert source.read("box>") == [Said(" <toolbox>")]


def test_a_long_call_is_not_read_again_with_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    source = reader(HERMES)
    seen: list[int] = []
    scan = source._scan

    def counting(text: str, is_whole: bool, offered: Collection[str]) -> Found | Begun | NoCall | None:
        seen.append(len(text))
        return scan(text, is_whole, offered)

    monkeypatch.setattr(source, "_scan", counting)
    source.read('<tool_call>{"name": "subtract", "arguments": {"a": "')
    for _ in range(10_000):
        source.read("word ")
    assert source.read('"}}</tool_call>') == [call(0, "subtract", json.dumps({"a": "word " * 10_000}))]
    assert len(seen) < 100


GOING_ON = [
    (HERMES, "Hello", " you", [Said(" you")]),
    (HERMES, "Hello\n", "\n you", [Said("\n you")]),
    (HERMES, "<think>Hm", " hm.</think>\nYes", [Said(" hm.", is_thought=True), Said("Yes")]),
    (HERMES, "<think>\n", "\nHm</think>Yes", [Said("Hm", is_thought=True), Said("Yes")]),
    (HERMES, "<think>Hm</thi", "nk>Yes", [Said("Yes")]),
    (HERMES, "<think>Hm</thi", "n", [Said("n", is_thought=True)]),
    (HERMES, "<think>Hm</thi", "</think>Yes", [Said("Yes")]),
    (HERMES, "<think>Hm</think>", "\n\nYes", [Said("Yes")]),
    (HERMES, "<think>Hm</think>\n\nYe", "s", [Said("s")]),
    (HERMES, "<thi", "nk>Hm", [Said("Hm", is_thought=True)]),
    (HERMES, "  <thi", "s", [Said("s")]),
    (HERMES, "Yes", "<think>no</think>", [Said("<think>no</think>")]),
    (HERMES, "Wait.<", "<", [Said("<")]),
    (HERMES, "Wait.<<tool", '_call>{"name": "add"}</tool_call>', [call(0, "add", "{}")]),
    (HERMES, "Wait.<", '<tool_call>{"name": "add"}</tool_call>', [call(0, "add", "{}")]),
    (HERMES, '<tool_call>{"name": "add"}</tool_call>', "Done", [Said("Done")]),
    (LLAMA3, "It is: ", '{"name": "add"}', [Said('{"name": "add"}')]),
    (ChatFormat(), "<think>", "Hm</think>", [Said("Hm</think>")]),
]


@pytest.mark.parametrize(("chat_format", "before", "said", "contents"), GOING_ON)
def test_what_was_said_before_an_answer_decides_what_it_is_and_is_no_part_of_it(
    chat_format: ChatFormat, before: str, said: str, contents: list[Content]
) -> None:
    for size in range(1, len(said) + 1):
        going_on = reader(chat_format)
        assert going_on.go_on_after(before)
        assert read(going_on, [said[at : at + size] for at in range(0, len(said), size)]) == contents
    nothing_more = reader(chat_format)
    nothing_more.go_on_after(before)
    assert (nothing_more.flush(), nothing_more.calls) == ([], 0)


PIECES = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<",
            "<t",
            "hink>",
            '<tool_call>{"name": "add"}</tool_call>',
            "<tool_call>",
            "{",
            "a",
            "\n",
        ]
    ),
    max_size=5,
).map("".join)


@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from([HERMES, LLAMA3, MISTRAL, ChatFormat(thinks=True)]), PIECES, PIECES, st.integers(1, 4))
def test_an_answer_that_goes_on_is_the_rest_of_the_whole(
    chat_format: ChatFormat, before: str, said: str, size: int
) -> None:
    def shown(contents: list[Content]) -> str:
        return "".join(content.text if isinstance(content, Said) else content.name for content in contents)

    going_on = reader(chat_format)
    if not before.strip() or not going_on.go_on_after(before):
        return
    new = shown(read(going_on, [said[at : at + size] for at in range(0, len(said), size)]))
    whole, alone = shown(read(reader(chat_format), [before + said])), shown(read(reader(chat_format), [before]))
    held_back = next((length for length in range(len(alone) + 1) if whole == alone[: len(alone) - length] + new), None)
    assert held_back is not None
    assert held_back < len("<tool_call>")


def test_an_answer_does_not_go_on_within_a_call() -> None:
    assert not reader(HERMES).go_on_after('<tool_call>{"name": ')
    assert not reader(HERMES).go_on_after('<tool_call>{"name": "add", "arguments": {"a": ')
    assert not reader(HERMES).go_on_after('<tool_call>{"name": "add", "arguments": {"a": 1}}')
    assert not reader(LLAMA3).go_on_after('{"name": "add", "parameters": {"a": ')
    assert reader(HERMES, tools=()).go_on_after('<tool_call>{"name": ')


@pytest.mark.parametrize(
    ("chat_format", "before", "said", "new"),
    [
        (HERMES, "The mark is <tool", "_call> in XML.", "_call> in XML."),
        (HERMES, "A call is written as <tool_call", ">, then JSON.", ">, then JSON."),
        (LLAMA3, '{"answer": ', "42}", "42}"),
        (LLAMA3, "{", '"name": "add", "parameters": {}}', '"name": "add", "parameters": {}}'),
        (HARMONY, "to=5 and <|end|> is what", "ever you want", "ever you want"),
        (HARMONY, "to=5 is the", " answer", " answer"),
    ],
)
def test_of_a_message_that_ends_in_what_may_be_a_mark_nothing_is_said_twice(
    chat_format: ChatFormat, before: str, said: str, new: str
) -> None:
    for size in (1, 2, 3, len(said)):
        going_on = reader(chat_format)
        assert going_on.go_on_after(before)
        contents = read(going_on, [said[at : at + size] for at in range(0, len(said), size)])
        assert "".join(content.text for content in contents if isinstance(content, Said)) == new


def test_a_bracket_too_few_ends_the_call_at_the_mark_and_costs_none_of_what_follows() -> None:
    text = (
        '<tool_call>{"name": "add", "arguments": {"a": 1\n</tool_call>\n'
        '<tool_call>{"name": "add", "arguments": {"s": "</tool_call> <"}}</tool_call>\nDone.'
    )
    for size in (1, 3, len(text)):
        contents = read(reader(HERMES), [text[at : at + size] for at in range(0, len(text), size)])
        arguments: dict[int, str] = {}
        for content in contents:
            if isinstance(content, ToolCallDelta):
                arguments[content.index] = arguments.get(content.index, "") + content.arguments
        assert arguments == {0: '{"a": 1\n', 1: '{"s": "</tool_call> <"}'}
        assert "".join(content.text for content in contents if isinstance(content, Said)) == "Done."


@pytest.mark.parametrize("odd", ["{", " a ", "s", "}json"])
def test_what_stands_in_a_header_and_is_no_part_of_one_is_not_lost(odd: str) -> None:
    text = f"<|channel|>analysis{odd}<|message|>"
    said = "".join(content.text for content in read(reader(HARMONY), [text]) if isinstance(content, Said))
    assert said == text
