"""Examples of docs/sdk.md about what the simulated engine does not do: what they ask for, and what they make of it."""

import asyncio

import pytest

from llama_orch.v2 import log_entry_pb2, task_event_pb2
from support.examples import BEYOND_THE_SIMULATION, EXAMPLES
from support.fake_orchestrator import FakeOrchestrator


@pytest.fixture
def _there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLORCH_ADDRESS", address)


pytestmark = pytest.mark.usefixtures("_there")


async def run(heading: str) -> None:
    (example,) = [one for one in EXAMPLES if one.heading == heading]
    assert heading in BEYOND_THE_SIMULATION
    await asyncio.to_thread(example.run)


async def test_tools_are_called_and_their_results_sent_back(
    fake: FakeOrchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    call = log_entry_pb2.ToolCallDelta(call_id="c1", name="get_weather", arguments='{"city": "Paris"}')
    fake.more_output = [task_event_pb2.Tokens(tool_call=call)]

    await run("Tools")

    assert "get_weather Paris" in capsys.readouterr().out
    first, second = (spec.generate.chat for spec in fake.tasks_seen)
    assert (first.tools[0].name, first.tool_choice, second.tool_choice) == ("get_weather", "get_weather", "none")
    _, assistant, tool = second.messages
    assert assistant.tool_calls[0].call_id == tool.tool_call_id == "c1"


async def test_a_schema_and_a_grammar_constrain_the_output(
    fake: FakeOrchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.words = ('{"colour": "red", ', '"warm": true}')

    await run("Output of a given form")

    assert capsys.readouterr().out.startswith("red\n")
    first, second = (spec.generate.output_constraint for spec in fake.tasks_seen)
    assert '"enum": ["red", "green", "blue"]' in first.json_schema
    assert second.grammar == 'root ::= "yes" | "no"'


async def test_log_probabilities_are_shown_with_alternatives(
    fake: FakeOrchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [log_entry_pb2.TokenLogprob(text=text, logprob=logprob) for text, logprob in (("Red", -0.5), ("Blue", -2))]
    position = log_entry_pb2.PositionLogprobs(chosen=tokens[0], top=tokens)
    fake.more_output = [task_event_pb2.Tokens(text="Red", logprobs=[position])]

    await run("Log probabilities")

    assert capsys.readouterr().out == "Red -0.5 ['Red', 'Blue']\n"
    assert fake.tasks_seen[0].generate.top_logprobs == 3
