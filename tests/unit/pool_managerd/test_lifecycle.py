import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.worker_state import TERMINAL, WorkerState
from pool_managerd.workers.lifecycle import IllegalTransition, WorkerEvent, after, may


def test_a_normal_life() -> None:
    state = WorkerState.STARTING
    for event in (
        WorkerEvent.BECAME_READY,
        WorkerEvent.DRAIN_ASKED,
        WorkerEvent.STOP_ASKED,
        WorkerEvent.ENDED_AS_TOLD,
    ):
        state = after(state, event)
    assert state is WorkerState.EXITED


@pytest.mark.parametrize("state", sorted(set(WorkerState) - TERMINAL))
def test_every_living_worker_can_break(state: WorkerState) -> None:
    assert after(state, WorkerEvent.ENDED_BROKEN) is WorkerState.FAILED


def test_memory_is_back_only_after_a_stop() -> None:
    leads_to_exited = [state for state in WorkerState if may(state, WorkerEvent.ENDED_AS_TOLD)]
    assert leads_to_exited == [WorkerState.STOPPING]


@given(st.sampled_from(sorted(TERMINAL)), st.sampled_from(WorkerEvent))
def test_nothing_leads_out_of_the_end(state: WorkerState, event: WorkerEvent) -> None:
    assert not may(state, event)
    with pytest.raises(IllegalTransition):
        after(state, event)


@given(st.lists(st.sampled_from(WorkerEvent)))
def test_no_order_of_events_makes_a_stopping_worker_ready(events: list[WorkerEvent]) -> None:
    state, was_stopping = WorkerState.STARTING, False
    for event in events:
        if may(state, event):
            state = after(state, event)
        was_stopping |= state is WorkerState.STOPPING
        assert not (was_stopping and state is WorkerState.READY)
