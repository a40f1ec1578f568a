"""Which of a request's texts count for the guess of its prompt's tokens."""

import pytest

from llama_orch.v2 import task_pb2 as pb2
from orchestratord.convert.tasks import to_request
from orchestratord.core.facts.prompt_size import guess_prompt_tokens
from orchestratord.core.facts.work import Work

TEXT = "Grüße, 🙂!"


def guessed(spec: pb2.TaskSpec) -> int:
    spec.model = "m"
    work = Work(spec.WhichOneof("work") or "")
    request = to_request(
        spec, work=work, app="", task_id="t", correlation_id="c", durable=True, content_digest="d", seed=1
    )
    return request.prompt_tokens


def chat(*messages: pb2.ChatMessage, tools: tuple[pb2.ToolDefinition, ...] = ()) -> pb2.TaskSpec:
    return pb2.TaskSpec(generate=pb2.GenerateWork(chat=pb2.ChatInput(messages=messages, tools=tools)))


def said(*texts: str, role: str = "user", calls: tuple[pb2.ToolCall, ...] = ()) -> pb2.ChatMessage:
    return pb2.ChatMessage(role=role, content=[pb2.ContentPart(text=text) for text in texts], tool_calls=calls)


def test_a_text_counts_by_its_characters_and_not_by_its_bytes() -> None:
    assert guessed(pb2.TaskSpec(generate=pb2.GenerateWork(prompt=TEXT * 50))) == guess_prompt_tokens(9 * 50, 0)


def test_all_parts_of_all_messages_count() -> None:
    messages = (said("a" * 100, role="system"), said("b" * 40, TEXT), said("c" * 7, role="assistant"))
    assert guessed(chat(*messages)) == guess_prompt_tokens(100 + 40 + 9 + 7, 3)


@pytest.mark.parametrize("field", ["description", "parameters"])
def test_what_a_tool_is_counts(field: str) -> None:
    texts = {"description": "d", "parameters": "{}"} | {field: "{" + " " * 398 + "}"}
    tool = pb2.ToolDefinition(name="look_up", **texts)
    characters = len(tool.description) + len(tool.parameters)
    assert guessed(chat(said("hi"), tools=(tool, tool))) == guess_prompt_tokens(2 + 2 * characters, 1)


def test_what_earlier_calls_of_tools_were_asked_counts() -> None:
    call = pb2.ToolCall(call_id="c1", name="look_up", arguments='{"word": "' + "x" * 300 + '"}')
    asked = said("hi", role="assistant", calls=(call, call))
    assert guessed(chat(said("hi"), asked)) == guess_prompt_tokens(2 + 2 + 2 * len(call.arguments), 2)


def test_all_texts_to_embed_count() -> None:
    assert guessed(pb2.TaskSpec(embed=pb2.EmbedWork(inputs=["a" * 100, TEXT]))) == guess_prompt_tokens(109, 0)


def test_a_query_counts_once_for_each_document() -> None:
    work = pb2.RerankWork(query="q" * 30, documents=["a" * 100, "b" * 50, TEXT])
    assert guessed(pb2.TaskSpec(rerank=work)) == guess_prompt_tokens(3 * 30 + 159, 0)
