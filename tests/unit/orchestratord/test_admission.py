import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core.admission import DEFAULT_RETRY_AFTER_MS, AdmissionQueue, DrainRate


def queue(capacity: int = 10) -> AdmissionQueue:
    return AdmissionQueue(("interactive", "batch"), capacity)


@pytest.mark.req("ORCH-1002")
def test_a_full_class_is_refused_with_a_delay_and_the_other_is_not() -> None:
    full = queue(capacity=1)
    full.add("t1", "coder", "interactive")
    with pytest.raises(ResourceExhausted) as refused:
        full.check_room("interactive")
    assert refused.value.reason is Reason.QUEUE_FULL
    assert refused.value.retry_after_ms == DEFAULT_RETRY_AFTER_MS
    assert refused.value.metadata["policy_label"] == "reject"
    full.check_room("batch")


def test_the_delay_follows_from_how_fast_the_queue_drains() -> None:
    rate = DrainRate()
    for second in range(20):
        rate.departed(second * 0.25)
    assert rate.retry_after_ms() == 250


def test_a_free_slot_goes_to_the_higher_class_and_then_to_the_longest_waiting() -> None:
    waiting = queue()
    waiting.add("slow", "coder", "batch")
    waiting.add("first", "coder", "interactive")
    waiting.add("second", "coder", "interactive")
    waiting.add("other", "writer", "interactive")
    served = []
    while task_id := waiting.next_for("coder"):
        served.append(task_id)
        waiting.remove(task_id)
    assert served == ["first", "second", "slow"]
    assert waiting.next_for("writer") == "other"


def test_models_come_in_the_order_of_who_waits_longest() -> None:
    waiting = queue()
    waiting.add("t1", "late", "batch")
    waiting.add("t2", "second", "interactive")
    waiting.add("t3", "third", "interactive")
    assert list(waiting.models()) == ["second", "third", "late"]


def test_a_position_counts_those_who_get_a_slot_of_the_model_before() -> None:
    waiting = queue()
    waiting.add("other", "tiny", "interactive")
    waiting.add("later", "coder", "batch")
    for name in ("a", "b", "c"):
        waiting.add(name, "coder", "interactive")
    waiting.remove("a")
    assert [waiting.position(name) for name in ("b", "c", "later")] == [0, 1, 2]
    assert (waiting.ahead("coder", "interactive"), waiting.ahead("coder", "batch")) == (2, 3)
    assert waiting.ahead("new", "batch") == 0


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["interactive", "batch"]), st.booleans())))
def test_both_views_of_the_queue_agree(steps: list[tuple[str, str, bool]]) -> None:
    waiting = queue(capacity=1000)
    present: list[str] = []
    for number, (model, priority, removes) in enumerate(steps):
        if removes and present:
            waiting.remove(present.pop(number % len(present)))
        else:
            waiting.add(f"t{number}", model, priority)
            present.append(f"t{number}")
        assert len(waiting) == len(present) == sum(waiting.depth(p) for p in waiting.priorities)
        assert sorted(task for model in "xyz" for task in waiting.waiting_for(model)) == sorted(present)
        assert set(waiting.models()) == {model for model in "xyz" if waiting.next_for(model)}
