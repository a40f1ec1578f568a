import pytest

from support.chat_families import FAMILIES, Family
from worker_orcd.chat.chat_format import ChatFormat, ToolStyle, format_of
from worker_orcd.chat.thought_marks import HARMONY

QWEN3 = "{%- if tools %}<tools>{{ tools | tojson }}</tools> within <tool_call></tool_call>{% endif %}</think>"
LLAMA31 = "{% if tools is not none %}Environment: ipython{% endif %}<|start_header_id|>{{ role }}"
MISTRAL = "{% if tools %}[AVAILABLE_TOOLS]{{ tools }}[/AVAILABLE_TOOLS]{% endif %}[INST]{{ content }}[/INST]"
DEEPSEEK = "{% for tool in message['tool_calls'] %}<｜tool▁calls▁begin｜>{% endfor %}{{ c.split('</think>')[-1] }}"
CHATML = "{% for message in messages %}<|im_start|>{{ message['role'] }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (QWEN3, ChatFormat(ToolStyle.HERMES, thinks=True)),
        (LLAMA31, ChatFormat(ToolStyle.LLAMA3)),
        (MISTRAL, ChatFormat(ToolStyle.MISTRAL)),
        (DEEPSEEK, ChatFormat(ToolStyle.DEEPSEEK, thinks=True)),
        (CHATML, ChatFormat()),
        ("", ChatFormat()),
    ],
)
def test_the_family_is_known_from_the_template(template: str, expected: ChatFormat) -> None:
    assert format_of(template) == expected


def test_marks_are_those_of_the_family() -> None:
    assert ChatFormat().marks == ()
    assert ChatFormat(ToolStyle.HERMES, thinks=True).marks == ("<think>", "</think>", "<tool_call>", "</tool_call>")
    assert ChatFormat(ToolStyle.HERMES, thinks=True).without_tools().marks == ("<think>", "</think>")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("<|im_start|>assistant\n<think>\n", True), ("<think>\n\n</think>\n\n", False), ("assistant\n", False)],
)
def test_a_prompt_may_have_opened_the_thoughts(prompt: str, expected: bool) -> None:
    assert ChatFormat(thinks=True).is_thinking(prompt) is expected
    assert not ChatFormat().is_thinking(prompt)


OF_FAMILIES = {
    "llama3": (ToolStyle.LLAMA3, ""),
    "mistral3": (ToolStyle.MISTRAL, ""),
    "mistral7_tekken": (ToolStyle.MISTRAL, ""),
    "magistral": (ToolStyle.MISTRAL, "[THINK]"),
    "qwen25": (ToolStyle.HERMES, ""),
    "qwen3": (ToolStyle.HERMES, "<think>"),
    "qwen3_coder": (ToolStyle.HERMES, ""),
    "hermes": (ToolStyle.HERMES, ""),
    "smollm3": (ToolStyle.HERMES, "<think>"),
    "glm4": (ToolStyle.HERMES, "<think>"),
    "falcon3": (ToolStyle.HERMES, ""),
    "nemotron": (ToolStyle.HERMES, "<think>"),
    "granite": (ToolStyle.NONE, "<think>"),
    "deepseek_r1": (ToolStyle.DEEPSEEK, "<think>"),
    "deepseek3": (ToolStyle.DEEPSEEK, "<think>"),
    "gpt_oss": (ToolStyle.HARMONY, "<|channel|>analysis<|message|>"),
    "command_r": (ToolStyle.NONE, "<|START_THINKING|>"),
    "seed_oss": (ToolStyle.NONE, "<seed:think>"),
}
"""Those that have tool calls that are known here, or thoughts."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.name))
def test_thoughts_and_calls_of_the_families_are_known(family: Family) -> None:
    found = format_of(family.template)
    tools, opening = OF_FAMILIES.get(family.name, (ToolStyle.NONE, ""))
    assert (found.tools, found.thoughts.opening if found.thinks else "") == (tools, opening)


def test_what_gpt_oss_writes_its_marks_with_has_to_be_seen() -> None:
    marks = ChatFormat(ToolStyle.HARMONY, thinks=True, thoughts=HARMONY).marks
    assert set(marks) == {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"}
