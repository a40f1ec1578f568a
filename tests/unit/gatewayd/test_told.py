"""What a client was told decides what may still become of its stream."""

import pytest

from gatewayd.told import Told, View
from llama_orch.v2.task_event_pb2 import End, Heartbeat, Placed, Started, TaskEvent, Tokens

STARTED = TaskEvent(task_id="t1", cursor="1.0", started=Started(model="m"))
PLACED = TaskEvent(task_id="t1", cursor="1.0", placed=Placed(attempt=1))
TOKENS = TaskEvent(task_id="t1", cursor="1.1", tokens=Tokens(count=1, text="a"))
END = TaskEvent(task_id="t1", cursor="1.1", end=End())


def told(view: View, *events: TaskEvent, after: str = "") -> Told:
    found = Told(view, after)
    for event in events:
        found.note(event)
    return found


def test_what_every_reader_is_told_first_is_news_once_and_moves_no_cursor() -> None:
    client = told(View.EVENTS, STARTED, PLACED, TOKENS)
    assert [client.note(event) for event in (STARTED, PLACED)] == [False, False]
    assert client.cursor == "1.1"
    assert client.note(TaskEvent(cursor="1.1", placed=Placed(attempt=2)))
    assert client.note(PLACED), "it goes on where it was before"
    assert client.note(TaskEvent(cursor="1.1", placed=Placed(attempt=1, worker_id="w2"))), "begun anew"
    assert client.note(TaskEvent(heartbeat=Heartbeat()))
    assert (client.cursor, client.task_id, client.is_over) == ("1.1", "t1", False)
    assert client.note(END)
    assert client.is_over


@pytest.mark.parametrize(
    ("view", "events", "may_start_over", "may_be_another"),
    [
        (View.EVENTS, (), True, True),
        (View.EVENTS, (STARTED, PLACED), True, False),
        (View.EVENTS, (STARTED, TOKENS), False, False),
        (View.PIECES, (STARTED, PLACED), True, True),
        (View.PIECES, (STARTED, TOKENS), False, False),
        (View.WHOLE, (STARTED, TOKENS), True, True),
    ],
)
def test_what_a_client_has_seen_can_not_be_taken_back(
    view: View, events: tuple[TaskEvent, ...], may_start_over: bool, may_be_another: bool
) -> None:
    client = told(view, *events)
    assert (client.may_start_over, client.may_be_another) == (may_start_over, may_be_another)


def test_a_client_that_comes_with_a_cursor_has_seen_output() -> None:
    client = told(View.EVENTS, after="1.4")
    assert (client.cursor, client.may_start_over) == ("1.4", False)


def test_output_that_starts_over_is_told_from_its_beginning() -> None:
    client = told(View.EVENTS, STARTED, PLACED)
    client.start_over()
    assert (client.task_id, client.cursor, client.lives) == ("t1", "", 2)
    assert [client.note(event) for event in (STARTED, PLACED)] == [False, True], "it started once, but where is news"


@pytest.mark.parametrize("view", [View.PIECES, View.WHOLE])
def test_another_task_has_an_id_of_its_own(view: View) -> None:
    client = told(view, STARTED)
    client.become_another()
    assert client.task_id == ""
    assert client.note(TaskEvent(task_id="t2", started=Started(model="m")))
    assert client.task_id == "t2"
