"""`llorch assign`, `assignments`, `unassign`, `explain`."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import assignment_pb2, decision_pb2, task_event_pb2, task_pb2
from llorch.cli import exit_codes, output
from llorch.errors import FailedPrecondition, Reason
from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]

SUMMARY = (
    "would load on GPU 1 (RTX 3060) of garage: 3.1 s to load, evicts phi-4 (idle 14 min, frees 8.9 GiB); GPU 0 "
    "(RTX 3090) of garage excluded: rule 'coder only on garage/RTX 3060'"
)


def decision() -> decision_pb2.DecisionLog:
    places = [
        decision_pb2.PlacementCandidate(
            where="GPU 1 (RTX 3060) of garage",
            score=[decision_pb2.ScoreTerm(name="load", ms=3100), decision_pb2.ScoreTerm(name="decode", ms=900)],
        ),
        decision_pb2.PlacementCandidate(
            where="GPU 0 (RTX 3060) of attic", score=[decision_pb2.ScoreTerm(name="decode", ms=5000)]
        ),
        decision_pb2.PlacementCandidate(where="GPU 0 (RTX 3090) of garage", filtered_by="pin", filter_detail="a rule"),
    ]
    return decision_pb2.DecisionLog(model="coder", summary=SUMMARY, candidates=places, chosen=0)


async def test_a_rule_is_set_as_it_was_said_and_read_back_as_a_sentence(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch(
        *("assign", "coder", "--app", "aider", "--to", "garage/3090", "--to", "attic"),
        *("--pin", "--keep-loaded", "--replicas", "1:3", "--fallback"),
    )

    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("coder for aider only on garage/3090 or attic, always loaded, 1 to 3 times, elsewhere")
    assert "`llorch unassign coder.rule`" in result.err
    assert fake.rules["coder.rule"] == assignment_pb2.Assignment(
        assignment_id="coder.rule",
        model="coder",
        app="aider",
        targets=["garage/3090", "attic"],
        mode=assignment_pb2.ASSIGNMENT_MODE_PIN,
        keep_loaded=True,
        replicas_min=1,
        replicas_max=3,
        fallback=True,
    )


@pytest.mark.parametrize(
    ("flag", "mode", "words"),
    [
        ((), assignment_pb2.ASSIGNMENT_MODE_PIN, "app aider only on attic"),
        (("--prefer",), assignment_pb2.ASSIGNMENT_MODE_PREFER, "app aider preferably on attic"),
        (("--avoid",), assignment_pb2.ASSIGNMENT_MODE_AVOID, "app aider not on attic"),
    ],
)
async def test_a_rule_pins_unless_it_says_otherwise(
    llorch: Llorch, fake: FakeOrchestrator, flag: tuple[str, ...], mode: int, words: str
) -> None:
    result = await llorch("assign", "--app", "aider", "--to", "attic", *flag)

    assert fake.rules["aider.rule"].mode == mode
    assert words in result.err


@pytest.mark.parametrize(("text", "least", "most"), [("2", 2, 2), ("1:3", 1, 3), (":3", 0, 3), ("2:", 2, 0)])
async def test_replicas_are_one_number_or_two(
    llorch: Llorch, fake: FakeOrchestrator, text: str, least: int, most: int
) -> None:
    await llorch("assign", "coder", "--to", "attic", "--replicas", text)

    rule = fake.rules["coder.rule"]
    assert (rule.replicas_min, rule.replicas_max) == (least, most)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("coder",), "--to: is needed"),
        (("coder", "--to", "attic", "--pin", "--avoid"), "--pin: goes without"),
        (("coder", "--to", "attic", "--replicas", "many"), "--replicas: has to be"),
        (("coder", "--to", "attic", "--replicas", ":"), "--replicas: has to be"),
    ],
)
async def test_a_rule_that_says_nothing_clear_is_not_sent(
    llorch: Llorch, fake: FakeOrchestrator, arguments: tuple[str, ...], told: str
) -> None:
    result = await llorch("assign", *arguments)

    assert result.code == 2
    assert told in result.err
    assert not fake.rules


async def test_a_contradiction_is_one_line_and_a_failure(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.rule_refusal = FailedPrecondition(Reason.ASSIGNMENT_CONFLICT, "'coder.avoid' contradicts 'coder.pin'")

    result = await llorch("assign", "coder", "--to", "attic", "--avoid")
    assert (result.code, result.err) == (1, "llorch: 'coder.avoid' contradicts 'coder.pin'\n")


async def test_rules_are_listed_and_taken_away(llorch: Llorch) -> None:
    assert "llorch assign" in (await llorch("assignments")).err
    await llorch("assign", "coder", "--to", "garage/RTX 3090", "--replicas", "2", "--json")

    header, line = (await llorch("assignments")).out.splitlines()
    assert header.split() == ["WHO", "WHERE", "ID", "NOTES"]
    assert " ".join(line.split()) == "coder only on garage/RTX 3090 coder.rule 2 times"
    assert (await llorch("assignments", "--json")).data()["assignments"][0]["mode"] == "ASSIGNMENT_MODE_PIN"
    assert (await llorch("unassign", "coder.rule")).code == 0
    missing = await llorch("unassign", "coder.rule")
    assert missing.code == 1
    assert "no assignment has the id 'coder.rule'" in missing.err


@pytest.mark.req("ORCH-1012")
async def test_what_keeps_a_rule_from_being_met_is_told(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.problems = ["node 'garage' is not there"]
    said = await llorch("assign", "coder", "--to", "garage")
    assert said.err.splitlines()[-1] == "coder.rule is not met: node 'garage' is not there"
    assert "not met: node 'garage' is not there" in (await llorch("assignments")).out
    fake.warnings = ["'coder.rule' (coder only on garage): node 'garage' is not there"]
    added = await llorch("models", "add", "coder", "/models/coder.gguf")
    assert added.err.splitlines() == fake.warnings
    as_json = await llorch("assignments", "--json")
    assert as_json.data()["assignments"][0]["problems"] == fake.problems


async def test_what_still_names_a_model_or_an_app_that_is_removed_is_told(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    fake.warnings = ["'coder.pin' (coder only on garage) still names model 'coder'"]
    await llorch("models", "add", "coder", "/models/coder.gguf")
    await llorch("apps", "add", "aider")
    for command in (("models", "rm", "coder"), ("apps", "rm", "aider")):
        assert (await llorch(*command)).err.splitlines()[1:] == fake.warnings


async def test_explain_tells_the_sentence_and_what_each_possible_place_would_take(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    fake.decisions = [decision()]

    result = await llorch("explain", "coder", "--app", "aider", "--prompt-tokens", "900", "--output-tokens", "50")

    said, header, first, second = result.out.splitlines()
    assert said == f"coder {SUMMARY}"
    assert header.split() == ["PLACE", "SECONDS", "LOAD", "DECODE"]
    assert first.split()[-3:] == ["4.0", "3.1", "0.9"]
    assert second.split()[-2:] == ["5.0", "5.0"]
    (asked,) = fake.explained
    assert (asked.model, asked.app, asked.prompt_tokens, asked.output_tokens) == ("coder", "aider", 900, 50)
    assert (await llorch("explain", "coder", "--json")).data()["summary"] == SUMMARY


async def test_explain_marks_what_was_never_measured_and_tells_no_time_as_none(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    terms = [
        decision_pb2.ScoreTerm(name="load", ms=3100),
        decision_pb2.ScoreTerm(name="decode", ms=900, guess=True),
        decision_pb2.ScoreTerm(name="pressure", ms=2),
        decision_pb2.ScoreTerm(name="queue", ms=0),
    ]
    place = decision_pb2.PlacementCandidate(where="GPU 0", score=terms)
    fake.decisions = [decision_pb2.DecisionLog(model="coder", summary=SUMMARY, candidates=[place])]
    told = await llorch("explain", "coder")
    assert told.out.splitlines()[-1].split()[-5:] == ["~4.0", "3.1", "~0.9", "<0.1", "0.0"]
    assert told.err.startswith("~ is a guess")


async def test_explain_tells_afterwards_where_a_task_went(llorch: Llorch, fake: FakeOrchestrator) -> None:
    newest_first = ["ran on GPU 0", "waited 3 s for a slot on GPU 0"]
    fake.decisions = [
        decision_pb2.DecisionLog(model="coder", task_id="task-1", summary=summary) for summary in newest_first
    ]

    assert (await llorch("explain", "--task", "task-1")).out.splitlines() == [
        "coder waited 3 s for a slot on GPU 0",
        "coder ran on GPU 0",
    ]
    unknown = await llorch("explain", "--task", "task-2")
    assert (unknown.code, unknown.out) == (exit_codes.FAILED, "")
    assert "task-2" in unknown.err
    assert len((await llorch("explain", "--task", "task-1", "--json")).data()["decisions"]) == 2


async def test_explain_tells_why_a_task_was_moved_and_failed(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.decisions = [decision_pb2.DecisionLog(model="coder", task_id="task-1", summary="ran on GPU 0")]
    error = task_event_pb2.Error(message="the worker ended by signal 9")
    losses = [task_event_pb2.ATTEMPT_LOSS_LEASE, task_event_pb2.ATTEMPT_LOSS_EXIT]
    fake.running = [task_pb2.Task(task_id="task-1", state=task_pb2.TASK_STATE_FAILED, losses=losses, error=error)]
    assert (await llorch("explain", "--task", "task-1")).out.splitlines() == [
        "coder ran on GPU 0",
        "Attempts were lost: lease, exit.",
        "It failed: the worker ended by signal 9",
    ]
    told = (await llorch("explain", "--task", "task-1", "--json")).data()
    assert (told["losses"], told["error"]["message"]) == (["lease", "exit"], error.message)


async def test_explain_tells_of_a_task_that_waits_where_it_could_go_now(llorch: Llorch, fake: FakeOrchestrator) -> None:
    waits = decision_pb2.DecisionLog(model="coder", task_id="task-2", summary="would load on GPU 1: 4 s")
    fake.decisions = [waits, decision_pb2.DecisionLog(model="coder", task_id="task-1", summary="ran on GPU 0")]
    fake.running = [
        task_pb2.Task(task_id="task-1", state=task_pb2.TASK_STATE_QUEUED),
        task_pb2.Task(task_id="task-3", state=task_pb2.TASK_STATE_RUNNING),
    ]
    told = (await llorch("explain", "--task", "task-1")).out.splitlines()
    assert told[:3] == ["coder ran on GPU 0", "It waits. Now:", "coder would load on GPU 1: 4 s"]
    assert [request.task_id for request in fake.explained] == ["task-1"]
    assert (await llorch("explain", "--task", "task-1", "--json")).data()["now"]["summary"] == waits.summary
    runs = await llorch("explain", "--task", "task-3")
    assert (runs.code, "task-3" in runs.err) == (exit_codes.DONE, True)
    assert len(fake.explained) == 2


async def test_explain_wants_a_model_or_a_task(llorch: Llorch) -> None:
    for arguments in ((), ("coder", "--task", "task-1")):
        result = await llorch("explain", *arguments)
        assert result.code == 2
        assert "--task" in result.err


async def test_on_a_terminal_of_80_columns_words_stay_whole(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    fake.decisions = [decision()]

    explained = (await llorch("explain", "coder")).out
    await llorch("assign", "coder", "--app", "aider", "--to", "garage/RTX 3090+RTX 3060", "--keep-loaded", "--fallback")
    listed = (await llorch("assignments")).out

    assert max(map(len, (explained + listed).splitlines())) <= 80
    assert " ".join(explained.split()).startswith(f"coder {SUMMARY} PLACE")
    assert listed.splitlines()[-1] == "    always loaded, elsewhere if that is lost"
