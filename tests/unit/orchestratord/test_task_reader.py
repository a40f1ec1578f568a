"""What a reader is told, in which order, whenever it comes and goes."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.v2 import log_entry_pb2, run_pb2, task_event_pb2
from llorch.errors import InvalidArgument, Reason, Unavailable
from llorch.finish_reason import FinishReason
from orchestratord.convert import task_output
from orchestratord.core import events
from orchestratord.core.facts import task_log
from orchestratord.core.facts.task import ChoiceEnd, RunResult, Stopped, TaskEnd, TaskRequest
from orchestratord.runtime.task_reader import END_KEPT_WITHIN_S, HEARTBEAT_S, TaskReader
from orchestratord.runtime.task_streams import NOTES_KEPT, NOTHING_NEW, TaskStream, TaskStreams
from support.streams import check_stream


def stream() -> TaskStream:
    request = TaskRequest(task_id="task-1", model="coder", payload=b"", content_digest="", seed=5)
    made = TaskStream(request, queue_position=2, admitted_at=datetime(2026, 1, 1, tzinfo=UTC))
    made.log.begin_attempt("a1")
    return made


def say(made: TaskStream, text: str, choice: int = 0, kind: str = "text") -> None:
    seq = len(made.log)
    entry = log_entry_pb2.LogEntry(seq=seq, choice=choice, token_ids=[seq], **{kind: text})  # type: ignore[arg-type]
    assert made.append("a1", [entry])


def place(made: TaskStream, attempt: int) -> None:
    made.note(task_event_pb2.Placed(attempt=attempt, worker_id=f"w{attempt}"))


def end(made: TaskStream, tokens: int) -> None:
    made.end(TaskEnd(RunResult((ChoiceEnd(0, FinishReason.EOS, tokens),), tokens_out=tokens), 1, 2))


def read(made: TaskStream, after: str = "", now: float = 0) -> list[task_event_pb2.TaskEvent]:
    return list(TaskReader(made, after, 0).take(now))


def kinds(events: list[task_event_pb2.TaskEvent]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


@pytest.mark.req("ORCH-1009")
def test_a_reader_does_not_hang_on_an_end_that_can_not_be_kept_and_comes_back_for_it() -> None:
    """The stream ends, and not the task: with a status, and no terminal."""
    made = stream()
    say(made, "a")
    made.end_asked_at = 10.0
    reader = TaskReader(made, "", 10.0)
    assert kinds(list(reader.take(10.0))) == ["started", "tokens"]
    assert kinds(list(reader.take(10.0 + END_KEPT_WITHIN_S - 0.1))) == []
    with pytest.raises(Unavailable, match="read on after the cursor") as sent_away:
        list(reader.take(10.0 + END_KEPT_WITHIN_S))
    assert (sent_away.value.reason, sent_away.value.retry_after_ms) == (Reason.STORE_FAILED, 1000)
    assert not reader.is_done
    come_back = TaskReader(made, "1.1", 20.0).take(20.0)
    assert kinds([next(come_back)]) == ["started"]
    with pytest.raises(Unavailable):
        next(come_back)
    end(made, 1)
    assert kinds(read(made, after="1.1", now=30.0)) == ["started", "end"]


def test_a_late_reader_gets_what_it_missed_in_one_message() -> None:
    made = stream()
    place(made, 1)
    for text in ("a", "b", "c"):
        say(made, text)
    end(made, 3)
    events = read(made)
    assert kinds(events) == ["started", "placed", "tokens", "end"]
    assert (events[2].tokens.text, events[2].tokens.count, events[2].cursor) == ("abc", 3, str(made.log.end))
    assert check_stream(events) == "abc"


def test_output_of_other_choices_and_kinds_comes_apart() -> None:
    made = stream()
    say(made, "x", choice=0)
    say(made, "y", choice=1)
    say(made, "z", choice=1, kind="reasoning")
    assert kinds(read(made)) == ["started", "tokens", "tokens", "tokens"]


def test_a_late_reader_gets_the_pieces_of_a_call_as_one_piece() -> None:
    made = stream()
    for piece in (
        {"index": 0, "call_id": "c0", "name": "look", "arguments": "{"},
        {"index": 0, "arguments": '"at": '},
        {"index": 0, "arguments": "1}"},
        {"index": 1, "call_id": "c1", "name": "stop", "arguments": "{"},
    ):
        seq = len(made.log)
        entry = log_entry_pb2.LogEntry(seq=seq, token_ids=[seq], tool_call=log_entry_pb2.ToolCallDelta(**piece))  # type: ignore[arg-type]
        assert made.append("a1", [entry])
    first, second = (event.tokens for event in read(made)[1:])
    assert (first.tool_call.call_id, first.tool_call.name, first.tool_call.arguments) == ("c0", "look", '{"at": 1}')
    assert (list(first.token_ids), first.count) == ([0, 1, 2], 3)
    assert second.tool_call == log_entry_pb2.ToolCallDelta(index=1, call_id="c1", name="stop", arguments="{")


def test_a_new_place_is_told_between_the_output_before_and_after_it() -> None:
    made = stream()
    place(made, 1)
    say(made, "a")
    place(made, 2)
    say(made, "b")
    events = read(made)
    assert kinds(events) == ["started", "placed", "tokens", "placed", "tokens"]
    assert [event.placed.attempt for event in events if event.HasField("placed")] == [1, 2]


@pytest.mark.req("ORCH-1005")
def test_a_resumed_reader_is_told_where_it_runs_now_and_no_output_twice() -> None:
    made = stream()
    place(made, 1)
    made.note(task_event_pb2.Narration(text="old news"))
    say(made, "a")
    place(made, 2)
    say(made, "b")
    events = read(made, after="1.1")
    assert kinds(events) == ["started", "placed", "tokens"]
    assert events[1].placed.attempt == 2
    assert events[2].tokens.text == "b"
    assert events[2].tokens.index == 1


def test_a_reader_that_comes_back_to_a_log_that_began_anew_hears_what_was_said_since() -> None:
    made = stream()
    made.log.log_epoch = 7
    made.note(task_event_pb2.Narration(text="waiting for node 'garage'"))
    assert kinds(read(made, after="1.0")) == ["started", "narration"]
    assert kinds(read(made, after="7.0")) == ["started"]


def test_of_a_task_that_is_told_much_the_last_is_kept_and_the_place_where_it_is() -> None:
    made = stream()
    early = TaskReader(made, "", 0)
    place(made, 1)
    for number in range(3):
        made.note(task_event_pb2.Narration(text=f"news {number}"))
    assert len(list(early.take(0))) == 5
    for number in range(3, NOTES_KEPT + 50):
        made.note(task_event_pb2.Narration(text=f"news {number}"))
    assert len(made.notes) == NOTES_KEPT
    told = [event.narration.text for event in early.take(0)]
    assert told == [f"news {number}" for number in range(50, NOTES_KEPT + 50)]
    assert [event.narration.text for event in read(made)[1:]] == told
    assert [event.placed.attempt for event in read(made, after="1.0")[1:]] == [1]


def test_a_cursor_behind_the_terminal_brings_the_terminal_again() -> None:
    made = stream()
    say(made, "a")
    end(made, 1)
    assert kinds(read(made, after="1.1")) == ["started", "end"]


@pytest.mark.req("ORCH-1009")
def test_a_reader_of_a_task_that_was_cancelled_before_its_run_was_found_is_not_sent_away_for_ever() -> None:
    made = stream()
    made.log.log_epoch = 77
    made.lose_sight()
    with pytest.raises(Unavailable):
        read(made, after="1.3")
    made.end(Stopped(FinishReason.CANCELLED, 1, 0))
    with pytest.raises(InvalidArgument) as reset:
        read(made, after="1.3")
    assert reset.value.reason is Reason.STREAM_RESET
    assert kinds(read(made)) == ["started", "end"]


def test_a_cursor_of_the_future_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        read(stream(), after="1.5")


def test_a_silent_stream_is_given_a_heartbeat_now_and_then() -> None:
    reader = TaskReader(stream(), "", now=0)
    assert kinds(list(reader.take(0))) == ["started"]
    assert kinds(list(reader.take(HEARTBEAT_S - 1))) == []
    assert kinds(list(reader.take(HEARTBEAT_S))) == ["heartbeat"]
    assert kinds(list(reader.take(HEARTBEAT_S + 1))) == []


def test_a_stopped_task_counts_what_its_log_has() -> None:
    made = stream()
    say(made, "a")
    say(made, "b", choice=1)
    say(made, "c", choice=1)
    made.end(Stopped(FinishReason.CANCELLED, 3, 4))
    ending = read(made)[-1].end
    assert [(choice.choice, choice.tokens_out) for choice in ending.choices] == [(0, 1), (1, 2)]
    assert ending.tokens_out == 3


def test_nothing_is_told_after_the_terminal_and_a_second_one_is_a_bug() -> None:
    made = stream()
    end(made, 0)
    made.note(task_event_pb2.Narration(text="too late"))
    assert kinds(read(made)) == ["started", "end"]
    with pytest.raises(RuntimeError):
        end(made, 0)


def test_what_a_superseded_attempt_says_is_dropped() -> None:
    made = stream()
    say(made, "a")
    made.log.end_attempt("a1")
    made.log.begin_attempt("a2")
    assert made.append("a1", [log_entry_pb2.LogEntry(seq=1, text="late")]) == NOTHING_NEW
    assert made.append("a2", [log_entry_pb2.LogEntry(seq=1, text="b", token_ids=[1])])


async def test_a_wake_up_is_never_lost() -> None:
    made = stream()
    reader = TaskReader(made, "", 0)
    assert kinds(list(reader.take(0))) == ["started"]
    say(made, "a")
    assert kinds(list(reader.take(0))) == ["tokens"], "what came before waiting needs no wake-up"


async def test_what_comes_while_the_last_event_is_written_is_news() -> None:
    """Nothing else would wake the reader of a task that has ended meanwhile."""
    made = stream()
    reader = TaskReader(made, "", 0)
    assert kinds(list(reader.take(0))) == ["started"]
    seen = made.revision
    for event in reader.take(HEARTBEAT_S):
        assert event.HasField("heartbeat")
        end(made, 0)
    async with asyncio.timeout(5):
        await made.changed(seen)
    assert kinds(list(reader.take(HEARTBEAT_S))) == ["end"]


async def test_a_reader_that_has_seen_everything_waits() -> None:
    made = stream()
    waiting = asyncio.create_task(made.changed(made.revision))
    await asyncio.wait({waiting}, timeout=0.01)
    assert not waiting.done()
    say(made, "a")
    await asyncio.wait_for(waiting, 5)


Step = tuple[str, int]


@pytest.mark.req("ORCH-1004", "ORCH-1005")
@given(st.lists(st.tuples(st.sampled_from(["say", "think", "place", "narrate", "read"]), st.integers(0, 2))))
def test_however_reading_and_writing_mix_a_reader_gets_everything_once(steps: list[Step]) -> None:
    made = stream()
    steady = TaskReader(made, "", 0)
    told: list[task_event_pb2.TaskEvent] = []
    said: dict[int, int] = {}
    for verb, choice in steps:
        if verb == "read":
            told.extend(steady.take(0))
        elif verb == "place":
            place(made, 1)
        elif verb == "narrate":
            made.note(task_event_pb2.Narration(text="hm"))
        else:
            say(made, "x", choice, "text" if verb == "say" else "reasoning")
            said[choice] = said.get(choice, 0) + 1
    made.end(Stopped(FinishReason.CANCELLED, 0, 0))
    told.extend(steady.take(0))
    check_stream(told)
    check_stream(read(made))
    for event in told:
        if event.HasField("tokens"):
            said[event.tokens.choice] -= event.tokens.count
    assert not any(said.values())
    resumed = read(made, after=told[len(told) // 2].cursor)
    rest = sum(event.tokens.count for event in told[len(told) // 2 + 1 :])
    assert sum(event.tokens.count for event in resumed) == rest


@given(
    st.lists(st.tuples(st.sampled_from(["text", "reasoning", "call", "place", "narrate"]), st.integers(0, 2))),
    st.integers(1, 5),
)
def test_a_reader_of_a_finished_task_gets_the_bytes_that_one_of_a_running_task_got(
    steps: list[Step], block: int
) -> None:
    """However its log is packed."""

    def written(made: TaskStream) -> list[bytes]:
        for what, number in steps:
            seq = len(made.log)
            if what == "place":
                place(made, number)
            elif what == "narrate":
                made.note(task_event_pb2.Narration(text="hm"))
            elif what == "call":
                call = log_entry_pb2.ToolCallDelta(index=number, name="look" if number else "", arguments="{")
                made.append("a1", [log_entry_pb2.LogEntry(seq=seq, token_ids=[seq], tool_call=call)])
            else:
                say(made, "ä" * number, number, what)
        return [event.SerializeToString(deterministic=True) for event in read(made)]

    unpacked = written(stream())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_log, "BLOCK_ENTRIES", block)
        made = stream()
        assert written(made) == unpacked
        made.end(Stopped(FinishReason.CANCELLED, 0, 0))
        finished = [event.SerializeToString(deterministic=True) for event in read(made)]
        assert finished[:-1] == unpacked
        restored = TaskStreams().restore(made.request, made.admitted_at, 1, task_output.from_bytes(made.log.packed()))
        assert restored.log.packed() == made.log.packed()
        assert list(restored.log.first_index) == list(made.log.first_index)


def test_metrics_come_with_output_once_a_second_at_most_and_stand_for_heartbeats() -> None:
    made = stream()
    reader = TaskReader(made, "", 0, lambda: task_event_pb2.Metrics(queue_depth=3))
    say(made, "a")
    assert kinds(list(reader.take(0.5))) == ["started", "tokens"], "a short task hears nothing of it"
    say(made, "b")
    assert kinds(list(reader.take(1.2))) == ["tokens", "metrics"]
    say(made, "c")
    assert kinds(list(reader.take(2.1))) == ["tokens"]
    assert kinds(list(reader.take(5))) == []
    (alone,) = reader.take(2.1 + HEARTBEAT_S)
    assert (alone.metrics.queue_depth, alone.cursor) == (3, str(made.log.end))
    end(made, 3)
    assert kinds(list(reader.take(60))) == ["end"], "nothing follows the end"


def test_what_a_cancelled_attempt_still_brings_is_dropped_before_another_one_begins() -> None:
    """A task that is to go on elsewhere shows nothing meanwhile: the brain decides by what was shown."""
    streams = TaskStreams()
    request = TaskRequest(task_id="task-1", model="coder", payload=b"", content_digest="", seed=5)
    streams.open(request, 0, datetime(2026, 1, 1, tzinfo=UTC))
    streams.begin_attempt("task-1", "a1")
    assert streams.writer("a1") is not None
    streams.end_attempt("a1")
    streams.end_attempt("a1")
    assert streams.writer("a1") is None
    assert streams.begin_attempt("task-1", "a2") is streams.writer("a2")
    streams.forget("task-1")
    assert streams.total_bytes == 0


def test_what_all_tasks_take_is_told_until_it_is_little_enough() -> None:
    streams = TaskStreams(most_bytes=2_000_000)
    for number in range(3):
        request = TaskRequest(task_id=f"task-{number}", model="coder", payload=b"", content_digest="", seed=5)
        streams.open(request, 0, datetime(2026, 1, 1, tzinfo=UTC))
        stream = streams.begin_attempt(request.task_id, f"a{number}")
        assert stream.append(f"a{number}", [log_entry_pb2.LogEntry(seq=0, text="x" * (500_000 + number * 100_000))])
    streams.end(streams.get("task-2").request, Stopped(FinishReason.CANCELLED, 0, 0))
    told: list[events.Event] = []
    streams.make_room(told.append)
    assert told == []
    streams.get("task-0").keep_reading(run_pb2.RunEnd(scores=[1.0] * 100_000))
    streams.make_room(told.append)
    assert told == [events.OutputsTooLarge("task-0")], "once, where the brain does nothing"

    def forget(event: events.Event) -> None:
        told.append(event)
        streams.forget(f"task-{3 - len(told)}")

    told.clear()
    streams.get("task-0").keep_reading(run_pb2.RunEnd(scores=[1.0] * 300_000))
    streams.make_room(forget)
    assert told == [events.OutputsTooLarge("task-0")] * 2, "3.0 MB, then 2.3, then 1.7"
    assert 1_600_000 < streams.total_bytes < 1_800_000


def test_what_a_task_takes_is_counted_until_it_is_forgotten() -> None:
    streams = TaskStreams()
    request = TaskRequest(task_id="task-1", model="coder", payload=b"a prompt", content_digest="", seed=5)
    streams.open(request, 0, datetime(2026, 1, 1, tzinfo=UTC))
    stream, taken = streams.begin_attempt("task-1", "a1"), [streams.total_bytes]
    for number in range(NOTES_KEPT + 20):
        stream.note(task_event_pb2.Narration(text="x" * number))
        taken.append(streams.total_bytes)
    stream.append("a1", [log_entry_pb2.LogEntry(seq=0, text="x" * 1000)])
    stream.keep_reading(run_pb2.RunEnd(scores=[1.0]))
    streams.end(request.without_work(), Stopped(FinishReason.CANCELLED, 0, 0))
    assert stream.request.payload == b""
    assert taken == sorted(taken)
    assert streams.total_bytes > taken[-1] + 1000
    streams.forget("task-1")
    stream.keep_reading(None)
    assert streams.total_bytes == 0


@pytest.mark.parametrize("first_token_ms", [0, 4])
def test_the_time_of_the_first_token_is_told_where_there_was_one(first_token_ms: int) -> None:
    made = stream()
    made.end(Stopped(FinishReason.CANCELLED, 3, first_token_ms))
    assert made.terminal is not None
    assert made.terminal.end.HasField("first_token_ms") == bool(first_token_ms)
