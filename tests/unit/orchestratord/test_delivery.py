"""What each reader of a delivery is sent, and what becomes of one that does not keep up."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2 import log_entry_pb2, task_event_pb2
from llorch.errors import InvalidArgument, Reason
from llorch.finish_reason import FinishReason
from llorch.rpc.status import error_from_details
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskEnd, TaskRequest
from orchestratord.runtime import delivery as delivery_module
from orchestratord.runtime.delivery import AHEAD_BYTES, FRAME_BYTES, Delivery
from orchestratord.runtime.task_reader import AttachedReader, TaskReader
from orchestratord.runtime.task_streams import TaskStream
from support.streams import check_stream

SLOW_AFTER_S = 30.0


class Gateway:
    """A delivery with its tasks: what is sent, by reader, and what was called."""

    def __init__(self) -> None:
        self.woken = 0
        self.left: list[int] = []
        self.broken: list[int] = []
        """Those that may return."""
        self.sent: dict[int, list[pb2.Delivered]] = {}
        self.streams: dict[int, TaskStream] = {}
        self.delivery = Delivery("d1", self._wake, SLOW_AFTER_S)

    def attach(self, number: int, stream: TaskStream | None = None) -> TaskStream:
        made = stream or task_stream(f"t{number}")
        self.streams[number] = made

        def leave(may_return: bool) -> None:
            (self.broken if may_return else self.left).append(number)

        self.delivery.attach(number, AttachedReader(TaskReader(made, "", 0), leave))
        return made

    def say(self, number: int, text: str) -> None:
        made = self.streams[number]
        seq = len(made.log)
        assert made.append("a1", [log_entry_pb2.LogEntry(seq=seq, token_ids=[seq], text=text)])

    def end(self, number: int) -> None:
        made = self.streams[number]
        made.end(TaskEnd(RunResult((ChoiceEnd(0, FinishReason.EOS, len(made.log)),), tokens_out=len(made.log)), 1, 2))

    def frame(self, now: float = 0) -> pb2.DeliverResponse | None:
        frame = self.delivery.next_frame(now)
        for delivered in frame.delivered if frame is not None else ():
            self.sent.setdefault(delivered.reader, []).append(delivered)
        return frame

    def frames(self, now: float = 0) -> int:
        count = 0
        while self.frame(now) is not None:
            count += 1
        return count

    def events(self, number: int) -> list[task_event_pb2.TaskEvent]:
        sent = self.sent.get(number, [])
        return [task_event_pb2.TaskEvent.FromString(each.event) for each in sent if each.event]

    def size(self, number: int) -> int:
        return sum(len(each.event) for each in self.sent.get(number, []))

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def task_stream(task_id: str) -> TaskStream:
    request = TaskRequest(task_id=task_id, model="coder", payload=b"", content_digest="", seed=5)
    made = TaskStream(request, queue_position=0, admitted_at=datetime(2026, 1, 1, tzinfo=UTC))
    made.log.begin_attempt("a1")
    return made


def test_one_frame_has_what_is_new_for_all_readers(gateway: Gateway) -> None:
    for number in (1, 2, 3):
        gateway.attach(number)
    gateway.frame()
    woken = gateway.woken
    gateway.say(1, "a")
    gateway.say(3, "b")
    assert gateway.woken > woken
    frame = gateway.frame()
    assert frame is not None
    assert [each.reader for each in frame.delivered] == [1, 3]
    assert [gateway.events(number)[-1].tokens.text for number in (1, 3)] == ["a", "b"]
    assert gateway.frame() is None


def test_readers_of_one_task_see_the_same(gateway: Gateway) -> None:
    made = gateway.attach(1)
    gateway.say(1, "early ")
    gateway.attach(2, made)
    gateway.frames()
    gateway.say(1, "late")
    gateway.end(1)
    gateway.frames()
    assert check_stream(gateway.events(1)) == check_stream(gateway.events(2)) == "early late"


def test_the_terminal_event_is_the_last_and_its_reader_leaves_once(gateway: Gateway) -> None:
    gateway.attach(1)
    gateway.end(1)
    gateway.frames()
    assert [each.is_last for each in gateway.sent[1]] == [False, True]
    assert (gateway.left, len(gateway.delivery)) == ([1], 0)
    gateway.delivery.leave(1)
    assert gateway.left == [1]


def test_a_reader_that_left_is_sent_nothing_and_its_task_knows_it_no_more(gateway: Gateway) -> None:
    gateway.attach(1)
    gateway.frame()
    gateway.delivery.leave(1)
    woken = gateway.woken
    gateway.say(1, "a")
    assert (gateway.woken, gateway.frame(), gateway.left) == (woken, None, [1])


def test_when_the_delivery_breaks_off_its_readers_may_return(gateway: Gateway) -> None:
    for number in (1, 2):
        gateway.attach(number)
    gateway.delivery.break_off()
    assert (gateway.left, gateway.broken, len(gateway.delivery)) == ([], [1, 2], 0)


def test_a_number_is_given_once(gateway: Gateway) -> None:
    gateway.attach(1)
    with pytest.raises(InvalidArgument, match="1 is attached already"):
        gateway.delivery.check_number(1)
    gateway.delivery.check_number(2)


def test_a_reader_is_sent_so_much_ahead_and_the_rest_once_it_has_taken_that(gateway: Gateway) -> None:
    gateway.attach(1)
    gateway.frame()
    while gateway.frame() is None and gateway.size(1) < AHEAD_BYTES:
        gateway.say(1, "x" * 100)
        gateway.frame()
    sent = gateway.size(1)
    assert sent < AHEAD_BYTES + 200
    for _ in range(50):
        gateway.say(1, "y")
    assert gateway.frame() is None
    gateway.delivery.take(1, sent, 0)
    gateway.frames()
    assert gateway.events(1)[-1].tokens.text == "y" * 50, "what waited comes in one event"


def test_a_reader_that_is_full_holds_up_no_other_one(gateway: Gateway) -> None:
    fill(gateway, 1)
    gateway.attach(2)
    gateway.say(1, "a")
    gateway.say(2, "b")
    frame = gateway.frame()
    assert frame is not None
    assert {each.reader for each in frame.delivered} == {2}


def test_long_backlogs_are_sent_in_turns(gateway: Gateway) -> None:
    """The second reader's first event is not behind all that the first one has missed."""
    for number in (1, 2):
        for _ in range(1200):
            if number not in gateway.streams:
                gateway.streams[number] = task_stream(f"t{number}")
            gateway.say(number, "x" * 300)
        gateway.attach(number, gateway.streams[number])
    frame = gateway.frame()
    assert frame is not None
    assert {each.reader for each in frame.delivered} == {1}
    frame = gateway.frame()
    assert frame is not None
    assert {each.reader for each in frame.delivered} == {2}


def test_a_reader_that_takes_nothing_is_given_up_and_no_other_one(gateway: Gateway) -> None:
    fill(gateway, 1)
    gateway.attach(2)
    gateway.frames(now=1)
    assert gateway.frame(now=SLOW_AFTER_S - 0.1) is None
    gateway.frames(now=SLOW_AFTER_S)
    last = gateway.sent[1][-1]
    told = error_from_details(last.failure)
    assert told is not None
    assert (last.is_last, told.reason) == (True, Reason.SLOW_READER)
    assert gateway.left == [1]
    assert len(gateway.delivery) == 1


def test_a_reader_that_takes_a_little_now_and_then_is_not_given_up(gateway: Gateway) -> None:
    gateway.attach(1)
    gateway.say(1, "x" * 4 * AHEAD_BYTES)
    gateway.frames()
    gateway.say(1, "y")
    for turn in range(1, 4):
        gateway.frames(now=turn * 0.9 * SLOW_AFTER_S)
        gateway.delivery.take(1, AHEAD_BYTES // 2, turn * 0.9 * SLOW_AFTER_S)
    assert gateway.left == []
    gateway.frames(now=4 * SLOW_AFTER_S)
    assert gateway.left == [1]


def test_one_that_has_all_there_is_may_take_its_time(gateway: Gateway) -> None:
    gateway.attach(1)
    gateway.say(1, "a")
    gateway.frames()
    assert gateway.frame(now=2 * SLOW_AFTER_S) is None
    assert gateway.left == []


def test_a_reader_that_fails_ends_alone(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        gateway.attach(number)

    def take(reader: TaskReader, _now: float) -> None:
        if reader.stream is gateway.streams[1]:
            raise ZeroDivisionError("secret")

    monkeypatch.setattr(delivery_module._Reader, "next_event", lambda self, now: take(self.attached.reader, now))
    gateway.frames()
    told = error_from_details(gateway.sent[1][-1].failure)
    assert told is not None
    assert told.reason is Reason.INTERNAL
    assert "secret" not in told.message
    assert gateway.left == [1]


@given(st.lists(st.tuples(st.sampled_from(["say", "frame", "take", "shout"]), st.integers(1, 3)), max_size=80))
def test_however_they_take_it_readers_get_everything_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    gateway, said = Gateway(), dict.fromkeys((1, 2, 3), "")
    taken = dict.fromkeys((1, 2, 3), 0)
    for number in (1, 2, 3):
        gateway.attach(number)

    def take(number: int) -> None:
        gateway.delivery.take(number, gateway.size(number) - taken[number], 0)
        taken[number] = gateway.size(number)

    for verb, number in steps:
        if verb == "frame":
            gateway.frame()
        elif verb == "take":
            take(number)
        else:
            text = f"{len(said[number])} " * (1 if verb == "say" else 1000)
            gateway.say(number, text)
            said[number] += text
        for each in (1, 2, 3):
            longest = max((len(sent.event) for sent in gateway.sent.get(each, [])), default=0)
            assert gateway.size(each) - taken[each] < AHEAD_BYTES + longest + 1
    for number in (1, 2, 3):
        gateway.end(number)
    while len(gateway.delivery):
        before = sum(gateway.size(number) for number in (1, 2, 3))
        gateway.frames()
        for number in (1, 2, 3):
            take(number)
        assert sum(gateway.size(number) for number in (1, 2, 3)) > before
    assert [check_stream(gateway.events(number)) for number in (1, 2, 3)] == list(said.values())


def fill(gateway: Gateway, number: int) -> None:
    """The reader has taken nothing of as much as it may be sent."""
    gateway.attach(number)
    gateway.say(number, "x" * max(AHEAD_BYTES, FRAME_BYTES // 2))
    gateway.frames()
    gateway.say(number, "y")
    assert gateway.frame() is None
