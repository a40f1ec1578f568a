import pytest

from worker_orcd.chat.chat_format import ChatFormat, ToolStyle, format_of, is_thinking

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
    assert is_thinking(prompt) is expected
