from typing import Any

import pytest

from llama_orch.v2 import error_reason_pb2, task_event_pb2
from llorch import AsyncClient, TaskFailed
from llorch.sdk.answer import Answer, AnswerParts, CalledTool
from llorch.sdk.convert import event_from_message
from llorch.sdk.events import FinishReason, PositionLogprobs
from llorch.sdk.task_spec import generate_spec
from support.fake_orchestrator import TASK_ID, FakeOrchestrator


def answer_of(*tokens: dict[str, Any], finish_reasons: tuple[int, ...] = (1,)) -> Answer:
    parts = AnswerParts()
    events = [task_event_pb2.TaskEvent(tokens=task_event_pb2.Tokens(**one)) for one in tokens]
    choices: Any = [{"choice": index, "finish_reason": reason} for index, reason in enumerate(finish_reasons)]
    for message in [*events, task_event_pb2.TaskEvent(task_id="t", end=task_event_pb2.End(choices=choices))]:
        event = event_from_message(message)
        assert event is not None
        parts.add(event)
    return parts.whole()


async def test_an_answer_is_all_that_the_stream_told(client: AsyncClient) -> None:
    answer = await client.generate("smollm2", "Hi").answer()

    assert (answer.task_id, answer.text) == (TASK_ID, "Red, green, blue.")
    assert answer.finish_reason is FinishReason.EOS
    assert (answer.end.tokens_in, answer.end.tokens_out) == (5, 3)
    assert answer.placed is not None
    assert answer.placed.node_id == "garage"


async def test_a_failed_task_has_no_answer(client: AsyncClient, fake: FakeOrchestrator) -> None:
    fake.failure = task_event_pb2.Error(reason=error_reason_pb2.ERROR_REASON_WORKER_LOST, message="gone")

    with pytest.raises(TaskFailed, match="gone"):
        await client.generate("smollm2", "Hi").answer()


async def test_a_stream_that_was_read_has_no_answer_any_more(client: AsyncClient) -> None:
    stream = client.generate("smollm2", "Hi")
    await stream.answer()

    with pytest.raises(RuntimeError, match=r"`stream\(task_id\)`"):
        await stream.answer()


def test_choices_are_told_apart_and_each_has_its_end() -> None:
    answer = answer_of(
        {"choice": 1, "text": "b", "token_ids": [2]},
        {"choice": 0, "text": "a", "token_ids": [1], "logprobs": [{"chosen": {"token_id": 1}}]},
        {"choice": 1, "text": "c", "token_ids": [3]},
        finish_reasons=(1, 3, 6),
    )

    assert [choice.text for choice in answer.choices] == ["a", "bc", ""]
    assert [choice.token_ids for choice in answer.choices] == [(1,), (2, 3), ()]
    assert [choice.end.finish_reason for choice in answer.choices] == ["eos", "length", "cancelled"]
    assert isinstance(answer.choices[0].logprobs[0], PositionLogprobs)


def test_thoughts_are_no_text() -> None:
    answer = answer_of({"reasoning": "hm"}, {"reasoning": "m"}, {"text": "Yes."})

    assert (answer.reasoning, answer.text) == ("hmm", "Yes.")


def test_pieces_of_tool_calls_become_calls_whose_arguments_are_parsed() -> None:
    answer = answer_of(
        {"tool_call": {"index": 1, "call_id": "c2", "name": "now"}},
        {"tool_call": {"index": 0, "call_id": "c1", "name": "look", "arguments": '{"at": '}},
        {"tool_call": {"index": 0, "arguments": '"ü"}'}},
    )

    assert answer.tool_calls == (CalledTool("c1", "look", '{"at": "ü"}'), CalledTool("c2", "now", ""))
    assert [call.arguments for call in answer.tool_calls] == [{"at": "ü"}, {}]
    with pytest.raises(ValueError, match="Expecting"):
        _ = answer_of({"tool_call": {"arguments": '{"at": '}}).tool_calls[0].arguments


def test_an_answer_is_a_turn_of_the_conversation_that_goes_on() -> None:
    answer = answer_of({"text": "Let me see."}, {"tool_call": {"call_id": "c1", "name": "look", "arguments": "{}"}})

    spec = generate_spec("m", [{"role": "user", "content": "Hi"}, answer.choices[0].message()], {})

    said = spec.generate.chat.messages[1]
    assert (said.role, said.content[0].text) == ("assistant", "Let me see.")
    assert (said.tool_calls[0].call_id, said.tool_calls[0].arguments) == ("c1", "{}")
    assert "content" not in answer_of({"tool_call": {"name": "look"}}).choices[0].message()
    assert "tool_calls" not in answer_of({"text": "Hi"}).choices[0].message()


def test_an_answer_without_choices_is_empty() -> None:
    answer = answer_of(finish_reasons=())

    assert (answer.text, answer.reasoning, answer.tool_calls) == ("", "", ())
    assert answer.finish_reason is FinishReason.UNKNOWN
