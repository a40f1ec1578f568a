import pytest

from llorch.errors import AlreadyExists, FailedPrecondition, Reason, ResourceExhausted
from llorch.finish_reason import FinishReason
from support.manual_clock import ManualClock
from worker_orcd.log_entry import ChoiceEnd, LogEntry, RunEnd
from worker_orcd.run_table import MOST_TOMBSTONES, CancelOutcome, Keeping, Run, RunTable
from worker_orcd.token_step import TokenStep

SPEC, OTHER_SPEC = b"spec", b"other"
END = RunEnd(choices=(ChoiceEnd(0, FinishReason.EOS, 1),))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def table(clock: ManualClock) -> RunTable:
    return RunTable(clock, max_admitted=2, keeping=Keeping())


def start(table: RunTable, attempt_id: str) -> Run:
    assert table.find_same(attempt_id, SPEC) is None
    return table.admit(attempt_id, SPEC)


def entry(text: str) -> LogEntry:
    return LogEntry(0, (1,), text)


def end(table: RunTable, attempt_id: str) -> None:
    table.apply(TokenStep(attempt_id, end=END))


def test_the_same_start_again_is_the_same_run(table: RunTable) -> None:
    run = start(table, "a")
    assert table.find_same("a", SPEC) is run


def test_the_same_id_with_another_spec_is_refused(table: RunTable) -> None:
    start(table, "a")
    with pytest.raises(AlreadyExists) as refused:
        table.find_same("a", OTHER_SPEC)
    assert refused.value.reason is Reason.ATTEMPT_EXISTS


def test_no_more_are_admitted_than_the_engine_takes(table: RunTable) -> None:
    start(table, "a")
    start(table, "b")
    with pytest.raises(ResourceExhausted) as refused:
        start(table, "c")
    assert refused.value.reason is Reason.NO_FREE_SLOT


def test_an_ended_run_frees_its_place_and_keeps_its_log(table: RunTable) -> None:
    run = start(table, "a")
    start(table, "b")
    table.apply(TokenStep("a", True, (entry("x"),)))
    end(table, "a")
    assert (table.unfinished, run.log, run.end) == (1, [entry("x")], END)
    start(table, "c")


def test_nothing_is_appended_after_the_end(table: RunTable) -> None:
    run = start(table, "a")
    end(table, "a")
    assert table.apply(TokenStep("a", entries=(entry("late"),))) is None
    assert run.log == []


def test_a_log_begins_with_its_prefix(table: RunTable) -> None:
    run = table.admit("a", SPEC, prefix=(entry("x"), entry("y")))
    table.apply(TokenStep("a", entries=(entry("z"),)))
    assert (run.prefix_length, run.log) == (2, [entry("x"), entry("y"), entry("z")])


def test_the_time_until_the_slot_is_measured(table: RunTable, clock: ManualClock) -> None:
    run = start(table, "a")
    clock.advance(0.25)
    table.apply(TokenStep("a", started=True))
    assert run.started_after_ms == 250


def test_a_withdrawn_run_leaves_nothing_behind(table: RunTable) -> None:
    table.withdraw(start(table, "a"))
    assert (table.unfinished, len(table)) == (0, 0)
    start(table, "a")


@pytest.mark.parametrize("gone_by", ["cancel", "release"])
def test_an_unknown_id_leaves_a_tombstone_that_stops_a_late_start(
    table: RunTable, clock: ManualClock, gone_by: str
) -> None:
    if gone_by == "cancel":
        assert table.cancel("a") is CancelOutcome.UNKNOWN
    else:
        assert table.release("a") is None
    clock.advance(599)
    with pytest.raises(FailedPrecondition) as refused:
        table.find_same("a", SPEC)
    assert refused.value.reason is Reason.ATTEMPT_RELEASED
    clock.advance(2)
    start(table, "a")


def test_tombstones_are_bounded_and_the_newest_stay(table: RunTable) -> None:
    for number in range(MOST_TOMBSTONES + 10):
        table.cancel(f"a-{number}")
    assert len(table._tombstones) == MOST_TOMBSTONES
    with pytest.raises(FailedPrecondition):
        table.find_same(f"a-{MOST_TOMBSTONES + 9}", SPEC)


def test_a_run_that_was_here_leaves_nothing_behind_after_a_minute(table: RunTable, clock: ManualClock) -> None:
    for number in range(100):
        start(table, f"a-{number}")
        end(table, f"a-{number}")
        table.release(f"a-{number}")
    clock.advance(59)
    with pytest.raises(FailedPrecondition) as refused:
        table.find_same("a-99", SPEC)
    assert refused.value.reason is Reason.ATTEMPT_RELEASED
    clock.advance(2)
    table.sweep()
    assert (len(table), len(table._gone), len(table._tombstones)) == (0, 0, 0)


def test_cancel_has_three_answers(table: RunTable) -> None:
    start(table, "a")
    assert table.cancel("a") is CancelOutcome.CANCELLED
    assert table.cancel("a") is CancelOutcome.CANCELLED
    end(table, "a")
    assert table.cancel("a") is CancelOutcome.ALREADY_FINISHED
    assert table.cancel("b") is CancelOutcome.UNKNOWN


def test_a_released_run_is_gone_and_can_not_come_back(table: RunTable) -> None:
    start(table, "a")
    end(table, "a")
    assert table.release("a") is None
    assert table.get("a") is None
    with pytest.raises(FailedPrecondition):
        table.find_same("a", SPEC)


def test_a_run_released_while_it_runs_holds_its_place_until_the_engine_lets_go(table: RunTable) -> None:
    run = start(table, "a")
    assert table.release("a") is run
    assert (table.unfinished, list(table.shown())) == (1, [])
    with pytest.raises(FailedPrecondition):
        table.find_same("a", SPEC)
    end(table, "a")
    assert (table.unfinished, len(table)) == (0, 0)


def test_a_run_without_a_reader_is_cancelled_after_the_grace(table: RunTable, clock: ManualClock) -> None:
    clock.advance(100)
    run = start(table, "a")
    clock.advance(59.9)
    assert table.sweep() == []
    clock.advance(0.2)
    assert table.sweep() == [run]
    assert run.cancelling
    assert table.sweep() == []


def test_a_run_that_is_watched_is_left_alone(table: RunTable, clock: ManualClock) -> None:
    run = start(table, "a")
    table.attach()
    clock.advance(1000)
    assert table.sweep() == []
    table.detach()
    clock.advance(59.9)
    assert table.sweep() == []
    clock.advance(0.2)
    assert table.sweep() == [run]


def test_a_private_run_needs_no_watcher_and_is_not_shown(table: RunTable, clock: ManualClock) -> None:
    table.admit("a", SPEC, private=True)
    clock.advance(1000)
    assert table.sweep() == []
    assert list(table.shown()) == []


def test_a_result_is_kept_for_ten_minutes_without_a_reader(table: RunTable, clock: ManualClock) -> None:
    start(table, "a")
    end(table, "a")
    clock.advance(599)
    table.sweep()
    assert table.get("a") is not None
    clock.advance(2)
    table.sweep()
    assert table.get("a") is None
