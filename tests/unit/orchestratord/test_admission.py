import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core.facts.admission import AdmissionQueue
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.returns import DEFAULT_RETRY_AFTER_MS


def queue(capacity: int = 10, policy: QueuePolicy = QueuePolicy.REJECT) -> AdmissionQueue:
    return AdmissionQueue(("interactive", "batch"), capacity, policy, max_starvation_s=60)


def next_of(waiting: AdmissionQueue, model: str) -> str | None:
    """The task that a free slot of the model goes to."""
    return next(waiting.heads(model), None)


def served(waiting: AdmissionQueue, model: str = "coder", tokens: int = 100) -> list[str]:
    """All tasks that wait for the model, in the order in which they get a slot."""
    order = []
    while task_id := next_of(waiting, model):
        order.append(task_id)
        waiting.take(task_id, tokens)
    return order


@pytest.mark.req("ORCH-1002")
def test_a_full_class_is_refused_with_a_delay_and_the_other_is_not() -> None:
    full = queue(capacity=1)
    full.add("t1", "coder", "interactive")
    with pytest.raises(ResourceExhausted) as refused:
        full.make_room("interactive")
    assert refused.value.reason is Reason.QUEUE_FULL
    assert refused.value.retry_after_ms == DEFAULT_RETRY_AFTER_MS
    assert refused.value.metadata["policy_label"] == "reject"
    assert full.make_room("batch") == []


@pytest.mark.parametrize("policy", QueuePolicy)
def test_a_class_is_full_by_what_its_tasks_hold_as_by_their_number(policy: QueuePolicy) -> None:
    full = AdmissionQueue(("interactive", "batch"), 1000, policy, capacity_bytes=100)
    full.add("t1", "coder", "interactive", size=60, arrival=1)
    full.add("t2", "coder", "interactive", size=40, arrival=2)
    full.add("t3", "coder", "batch", size=100, arrival=3)
    with pytest.raises(ResourceExhausted, match=r"is full: 2 of 1000 tasks .* 0\.0 of .* MiB") as refused:
        full.make_room("interactive", 1)
    assert refused.value.reason is Reason.QUEUE_FULL
    assert refused.value.metadata["policy_label"] == policy
    assert refused.value.retry_after_ms is not None
    full.remove("t2")
    assert full.make_room("interactive", 40) == []
    assert full.size("interactive") == 60


def test_as_many_are_dropped_as_hold_what_the_newcomer_needs() -> None:
    """The lowest class first, the oldest first; none if that would not do."""
    full = AdmissionQueue(("interactive", "batch"), 1000, QueuePolicy.DROP_LRU, capacity_bytes=100)
    for number in range(5):
        full.add(f"b{number}", "coder", "batch", size=30)
    full.add("i0", "coder", "interactive", size=40)
    assert full.make_room("interactive", 10) == []
    assert full.make_room("interactive", 70) == ["b0", "b1"]
    assert full.make_room("interactive", 190) == ["b0", "b1", "b2", "b3", "b4", "i0"]
    with pytest.raises(ResourceExhausted):
        full.make_room("batch", 180)
    full.add("kept", "coder", "interactive", size=60, unkept=True)
    full.answered("kept")
    assert full.too_many("kept") == ["b0", "b1"]


def test_no_more_are_dropped_than_make_the_room_and_none_where_that_does_not_make_it() -> None:
    full = AdmissionQueue(("interactive", "batch"), 1000, QueuePolicy.DROP_LRU, capacity_bytes=100)
    for number in range(5):
        full.add(f"small{number}", "coder", "batch", size=10)
    full.add("large", "coder", "batch", size=90)
    full.add("next", "coder", "batch", size=60)
    assert full.make_room("interactive", 70) == ["large"], "the small ones before it bring nothing"
    assert full.make_room("interactive", 110) == ["small0", "small1", "large"], "of those that may stay, the newest"
    full.add("high", "coder", "interactive", size=100)
    with pytest.raises(ResourceExhausted):
        full.make_room("batch", 320)
    full.add("kept", "coder", "batch", size=400, unkept=True)
    full.answered("kept")
    assert full.too_many("kept") == [], "without all of the batch it would be too large all the same"


def test_refused_clients_are_not_told_to_come_back_all_at_once() -> None:
    full = queue(capacity=1)
    for second in range(3):
        full.now = second
        full.add(f"t{second}", "coder", "batch")
        full.take(f"t{second}", 1)
    full.add("last", "coder", "batch")
    delays = []
    for _ in range(3):
        with pytest.raises(ResourceExhausted) as refused:
            full.make_room("batch")
        delays.append(refused.value.retry_after_ms)
    assert delays == [1000, 2000, 3000]


@pytest.mark.req("ORCH-1002")
def test_drop_lru_takes_the_longest_waiting_of_the_lowest_class_and_never_a_higher_one() -> None:
    full = queue(capacity=2, policy=QueuePolicy.DROP_LRU)
    for name, priority in (("b1", "batch"), ("i1", "interactive"), ("b2", "batch")):
        assert full.make_room(priority) == []
        full.add(name, "coder", priority)
    full.add("i2", "coder", "interactive")
    assert full.make_room("interactive") == ["b1"]
    full.remove("b1")
    full.add("i3", "coder", "interactive")
    assert full.make_room("batch") == ["b2"]
    full.remove("b2")
    full.add("i4", "coder", "interactive")
    with pytest.raises(ResourceExhausted) as refused:
        full.make_room("batch")
    assert refused.value.metadata["policy_label"] == "drop-lru"
    assert full.make_room("interactive") == ["i1"]


def test_a_task_that_comes_back_has_its_old_place_and_is_not_dropped() -> None:
    full = queue(capacity=1, policy=QueuePolicy.DROP_LRU)
    for name in ("first", "second"):
        full.add(name, "coder", "batch")
    places = {name: full.take(name, 100) for name in ("first", "second")}
    full.add("third", "coder", "batch")
    for name in ("second", "first"):
        full.add(name, "coder", "batch", arrival=places[name].arrival)
    assert full.make_room("batch") == ["third"]
    assert served(full) == ["first", "second", "third"]


def test_a_free_slot_goes_to_the_higher_class_and_then_to_the_longest_waiting() -> None:
    waiting = queue()
    waiting.add("slow", "coder", "batch")
    waiting.add("first", "coder", "interactive")
    waiting.add("second", "coder", "interactive")
    waiting.add("other", "writer", "interactive")
    assert served(waiting) == ["first", "second", "slow"]
    assert next_of(waiting, "writer") == "other"


@pytest.mark.req("ORCH-1003")
def test_a_lower_class_is_passed_over_for_no_longer_than_the_bound() -> None:
    waiting = queue()
    waiting.add("slow", "coder", "batch")
    waiting.add("slower", "coder", "batch")
    waiting.now = 59
    waiting.add("fast", "coder", "interactive")
    assert next_of(waiting, "coder") == "fast"
    waiting.now = 60
    assert list(waiting.heads("coder")) == ["slow", "fast"]
    waiting.take("slow", 1)
    assert next_of(waiting, "coder") == "fast", "the class was served, so the higher one has its turn again"
    waiting.now = 120
    assert next_of(waiting, "coder") == "slower"


@pytest.mark.req("ORCH-1003")
@pytest.mark.parametrize(("weights", "share"), [({}, 0.5), ({"flood": 3.0}, 0.75), ({"calm": 4.0}, 0.2)])
def test_apps_that_always_wait_are_served_by_weight(weights: dict[str, float], share: float) -> None:
    waiting = queue(capacity=10_000)
    waiting.accounts.weights = weights
    for number in range(600):
        waiting.add(f"flood-{number}", "coder", "batch", app="flood")
    for number in range(500):
        waiting.add(f"calm-{number}", "coder", "batch", app="calm")
    tokens = {"flood": 0, "calm": 0}
    for step in range(500):
        task_id = next_of(waiting, "coder")
        assert task_id is not None
        app, actual = task_id.partition("-")[0], 50 + step * 37 % 300
        place = waiting.take(task_id, 200)
        waiting.settle(place, 200, actual)
        tokens[app] += actual
    assert tokens["flood"] / sum(tokens.values()) == pytest.approx(share, rel=0.02)


@pytest.mark.req("ORCH-1003")
def test_a_flood_delays_no_app_but_its_own() -> None:
    waiting = queue(capacity=10_000)
    for number in range(1000):
        waiting.add(f"flood-{number}", "coder", "interactive", app="flood")
    for _ in range(50):
        task_id = next_of(waiting, "coder")
        assert task_id is not None
        waiting.take(task_id, 100)
    waiting.add("calm", "coder", "interactive", app="calm")
    assert next_of(waiting, "coder") == "calm"


def test_a_pause_earns_nothing() -> None:
    waiting = queue(capacity=10_000)
    waiting.add("early", "coder", "batch", app="sleeper")
    waiting.take("early", 10)
    for number in range(200):
        waiting.add(f"worker-{number}", "coder", "batch", app="worker")
        if number < 100:
            waiting.take(f"worker-{number}", 100)
    for number in range(100):
        waiting.add(f"sleeper-{number}", "coder", "batch", app="sleeper")
    first = [task_id.partition("-")[0] for task_id in served(waiting)[:20]]
    assert first.count("worker") >= 9, "the app that slept may not make up for what it did not ask for"


def test_an_app_pays_for_what_it_got_and_not_for_what_was_expected() -> None:
    waiting = queue()
    for app in ("long", "short"):
        for number in range(3):
            waiting.add(f"{app}-{number}", "coder", "batch", app=app)
    waiting.settle(waiting.take("long-0", 100), 100, 1000)
    waiting.settle(waiting.take("short-0", 100), 100, 10)
    assert served(waiting)[:2] == ["short-1", "short-2"]


def test_a_task_that_may_not_use_a_worker_does_not_hold_up_its_app() -> None:
    waiting = queue()
    waiting.add("pinned", "coder", "batch", app="aider", lane="only on gpu 1")
    waiting.add("pinned too", "coder", "batch", app="aider", lane="only on gpu 1")
    waiting.add("free", "coder", "batch", app="aider")
    assert list(waiting.heads("coder")) == ["pinned", "free"]
    assert waiting.lanes_of("coder") == ["only on gpu 1", None]


def test_an_app_at_its_limit_is_passed_over() -> None:
    waiting = queue()
    waiting.add("t1", "coder", "interactive", app="greedy")
    waiting.add("t2", "coder", "batch")
    waiting.held.add("greedy")
    assert next_of(waiting, "coder") == "t2"
    assert waiting.models_of_app("greedy") == ["coder"]
    waiting.held.clear()
    assert next_of(waiting, "coder") == "t1"


def test_models_come_in_the_order_of_their_longest_waiting_tasks() -> None:
    waiting = queue()
    waiting.add("t1", "late", "batch")
    waiting.add("t2", "second", "interactive")
    waiting.add("t3", "third", "interactive")
    assert list(waiting.models()) == ["second", "third", "late"]


def test_a_position_counts_the_tasks_that_get_a_slot_of_the_model_before() -> None:
    waiting = queue()
    waiting.add("other", "tiny", "interactive")
    waiting.add("later", "coder", "batch")
    for name in ("a", "b", "c"):
        waiting.add(name, "coder", "interactive")
    waiting.remove("a")
    assert [waiting.before(name).tasks for name in ("b", "c", "later")] == [0, 1, 2]
    assert (waiting.ahead("coder", "interactive").tasks, waiting.ahead("coder", "batch").tasks) == (2, 3)
    assert waiting.ahead("new", "batch").tasks == 0


def test_a_position_knows_that_apps_take_turns() -> None:
    waiting = queue(capacity=1000)
    for number in range(100):
        waiting.add(f"flood-{number}", "coder", "interactive", app="flood")
    assert waiting.ahead("coder", "interactive", "calm").tasks == 1
    waiting.add("calm", "coder", "interactive", app="calm")
    assert waiting.before("calm").tasks == served(waiting).index("calm")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8)), min_size=1, max_size=12),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.sampled_from("abc"),
)
def test_a_position_knows_what_the_apps_have_had(had: list[tuple[str, int]], waits: list[str], newcomer: str) -> None:
    """All tasks cost one device-second."""
    waiting = queue(capacity=1000)
    waiting.accounts.weights.update({"a": 1.0, "b": 2.0, "c": 4.0})
    for number, app in enumerate("abc"):
        waiting.add(f"first-{number}", "coder", "interactive", app=app)
    for app, device_s in had:
        waiting.accounts.charge(app, device_s)
    for app in "abc":
        waiting.add(f"more-{app}", "coder", "interactive", app=app)
    waiting.take("first-0", 1.0)
    for number, app in enumerate(waits):
        waiting.add(f"t{number}", "coder", "interactive", app=app)
    foretold = waiting.ahead("coder", "interactive", newcomer).tasks
    waiting.add("new", "coder", "interactive", app=newcomer)
    assert foretold == waiting.before("new").tasks
    assert served(waiting, tokens=1).index("new") == foretold


Step = tuple[str, str, str, str, bool]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("xyz"),
            st.sampled_from(["interactive", "batch"]),
            st.sampled_from("ab"),
            st.sampled_from(["here", "there"]),
            st.booleans(),
        )
    )
)
def test_all_views_of_the_queue_agree(steps: list[Step]) -> None:
    waiting = queue(capacity=1000)
    present: list[str] = []
    for number, (model, priority, app, lane, removes) in enumerate(steps):
        waiting.now += 20
        if removes and present:
            place = waiting.take(present.pop(number % len(present)), 10)
            waiting.settle(place, 10, number)
        else:
            waiting.add(f"t{number}", model, priority, app=app, lane=lane)
            present.append(f"t{number}")
        assert len(waiting) == len(present) == sum(waiting.depth(p) for p in waiting.priorities)
        assert sorted(task for model in "xyz" for task in waiting.waiting_for(model)) == sorted(present)
        assert set(waiting.models()) == {model for model in "xyz" if next_of(waiting, model)}
        assert set(waiting.models()) == {model for model in "xyz" if waiting.has_waiting(model)}
        assert {model for app in "ab" for model in waiting.models_of_app(app)} == set(waiting.models())
        for name in "xyz":
            heads = list(waiting.heads(name))
            assert len(heads) == len({(waiting[t].priority, waiting[t].app, waiting[t].lane) for t in heads})
