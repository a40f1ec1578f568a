"""Apps share the room of the queue, and those that were told to come back find a place."""

import random
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.errors import ResourceExhausted
from orchestratord.core import effects, events
from orchestratord.core.facts.admission import AdmissionQueue
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.returns import DEFAULT_RETRY_AFTER_MS, EXPECTED_FOR_S, KEPT_FREE, MAX_RETRY_AFTER_MS
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.learnt.drain_rate import REMEMBERED, DrainRate
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu

CLASSES = ("interactive", "batch")


def queue(capacity: int, policy: QueuePolicy = QueuePolicy.REJECT, capacity_bytes: int = 2**30) -> AdmissionQueue:
    return AdmissionQueue(CLASSES, capacity, policy, capacity_bytes=capacity_bytes)


_NUMBERS = count()


def submit(waiting: AdmissionQueue, app: str, priority: str = "interactive", size: int = 0) -> str:
    """A task comes as the brain lets it: those that are dropped for it go."""
    for victim in waiting.make_room(priority, size, app):
        waiting.remove(victim)
    task_id = f"{app}-{next(_NUMBERS)}"
    waiting.add(task_id, "coder", priority, app=app, size=size)
    return task_id


def fill(waiting: AdmissionQueue, app: str, priority: str = "interactive", size: int = 0) -> int:
    """As many as are let in."""
    for number in count():
        try:
            submit(waiting, app, priority, size)
        except ResourceExhausted:
            return number
    raise AssertionError


def waiting_by_app(waiting: AdmissionQueue) -> dict[str, int]:
    found: dict[str, int] = {}
    for task_id in waiting.waiting_for("coder"):
        found[waiting[task_id].app] = found.get(waiting[task_id].app, 0) + 1
    return found


# Who gets in.


@pytest.mark.req("ORCH-1002")
def test_a_full_queue_is_full_for_those_that_filled_it() -> None:
    full = queue(capacity=12)
    assert [fill(full, app) for app in ("flood", "second", "third")] == [12, 6, 4]
    assert fill(full, "flood") == 0
    assert fill(full, "batch", "batch") == 12, "a class has room of its own"


def test_what_an_app_took_before_others_came_is_less_than_its_part_later_on() -> None:
    full = queue(capacity=12)
    fill(full, "flood")
    fill(full, "calm")
    for task_id in full.waiting_for("coder")[:6]:
        full.remove(task_id)
    assert waiting_by_app(full) == {"flood": 6, "calm": 6}
    assert fill(full, "flood") == 0
    full.remove(full.waiting_for("coder")[0])
    full.now = EXPECTED_FOR_S + 10
    assert fill(full, "flood") == 1


def test_each_of_more_apps_than_places_gets_one() -> None:
    full = queue(capacity=2)
    assert [fill(full, f"app{number}") for number in range(5)] == [2, 1, 1, 1, 1]


def test_the_room_in_bytes_is_shared_alike() -> None:
    full = queue(capacity=1000, capacity_bytes=100)
    assert fill(full, "flood", size=10) == 10
    assert fill(full, "calm", size=10) == 5
    assert fill(full, "large", size=34) == 0, "more than a third of it"
    assert fill(full, "small", size=33) == 1


def test_the_refusal_says_what_the_part_of_the_app_is() -> None:
    full = queue(capacity=4)
    fill(full, "flood")
    with pytest.raises(ResourceExhausted) as alone:
        submit(full, "flood")
    assert "part" not in alone.value.message
    fill(full, "calm")
    told = r"6 of 4 tasks .*; 2 of them, .* are of the app that asks, which is its part of the room for 2 apps"
    with pytest.raises(ResourceExhausted, match=told):
        submit(full, "calm")


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from(CLASSES), st.integers(0, 30), st.booleans()), max_size=120
    ),
    st.sampled_from(QueuePolicy),
)
def test_all_apps_together_hold_no_more_than_their_parts_sum_up_to(
    steps: list[tuple[str, str, int, bool]], policy: QueuePolicy
) -> None:
    """Whatever comes and goes: n apps hold 1 + 1/2 + … + 1/n times the capacity at most, of tasks and of bytes."""
    waiting = queue(10, policy, capacity_bytes=100)
    classes = 2 if policy is QueuePolicy.DROP_LRU else 1
    most = sum(1 / n for n in range(1, 6)) * classes
    for app, priority, size, goes in steps:
        waiting.now += 3 * EXPECTED_FOR_S
        if goes and (found := waiting.waiting_for("coder")):
            waiting.remove(found[0])
        with suppress(ResourceExhausted):
            submit(waiting, app, priority, size)
        for name in CLASSES:
            assert waiting.depth(name) <= 10 * most
            assert waiting.size(name) <= 100 * most


# Who is dropped.


@pytest.mark.req("ORCH-1002")
def test_a_flood_drops_its_own_tasks_and_none_of_an_app_within_its_part() -> None:
    full = queue(capacity=5, policy=QueuePolicy.DROP_LRU)
    calm = [submit(full, "calm") for _ in range(3)]
    for _ in range(50):
        submit(full, "flood")
    assert waiting_by_app(full) == {"calm": 3, "flood": 7}
    assert full.waiting_for("coder")[:3] == calm


def test_a_flood_of_the_higher_class_makes_room_for_another_app_and_not_its_batch() -> None:
    full = queue(capacity=5, policy=QueuePolicy.DROP_LRU)
    batch = submit(full, "calm", "batch")
    first = submit(full, "flood")
    for _ in range(8):
        submit(full, "flood")
    assert full.make_room("interactive", app="third") == [first]
    assert batch in full


def test_where_none_may_be_dropped_an_app_below_its_part_gets_in() -> None:
    full = queue(capacity=2, policy=QueuePolicy.DROP_LRU)
    for _ in range(4):
        submit(full, "flood")
    assert full.make_room("batch", app="calm") == [], "all of the flood are of the higher class"
    with pytest.raises(ResourceExhausted):
        full.make_room("batch", app="flood")


def test_the_app_with_most_bytes_gives_the_bytes() -> None:
    full = queue(capacity=1000, policy=QueuePolicy.DROP_LRU, capacity_bytes=50)
    many = [submit(full, "many", size=1) for _ in range(40)]
    large = submit(full, "large", size=60)
    assert full.make_room("interactive", 1, "third") == [large]
    assert all(task_id in full for task_id in many)


# Who starts at once.


def driver(**config: object) -> BrainDriver:
    """A busy worker of "coder" with one slot, an idle one of "writer" with two, and room for two that wait."""
    brain = BrainDriver(BrainConfig(queue_capacity=2, **config))  # type: ignore[arg-type]  # tests name fields
    brain.add_node("garage", gpu("GPU-1"), gpu("GPU-2", index=1))
    for name, slots in (("coder", 1), ("writer", 2)):
        brain.add_model(name, size_mib=8000, vram_claim_mib=20_000, slots=slots, context=2048)
        brain.load_idle(name)
    for _ in range(3):
        brain.submit("coder")
    return brain


@pytest.mark.req("ORCH-1002")
@pytest.mark.parametrize("policy", QueuePolicy)
@pytest.mark.parametrize("durable", [False, True])
def test_a_task_for_which_a_slot_is_free_starts_although_the_queue_is_full(policy: QueuePolicy, durable: bool) -> None:
    brain = driver(queue_policy=policy)
    if policy is QueuePolicy.DROP_LRU:
        for _ in range(2):
            brain.submit("coder")
    task_id = brain.submit("writer", durable=durable)
    assert brain.task(task_id).state is TaskState.RUNNING
    assert not [end for end in brain.all_of(effects.AppendTerminal) if isinstance(end.terminal, TaskError)]
    with pytest.raises(ResourceExhausted) if policy is QueuePolicy.REJECT else nullcontext():
        brain.submit("coder")


def test_no_more_start_at_once_than_there_are_slots_while_the_store_has_not_answered() -> None:
    brain = driver()
    brain.store_answers = False
    for _ in range(2):
        brain.submit("writer", durable=True)
    with pytest.raises(ResourceExhausted):
        brain.submit("writer", durable=True)
    with pytest.raises(ResourceExhausted):
        brain.submit("writer")


def test_a_task_of_an_app_at_its_limit_does_not_start_so_it_needs_room() -> None:
    brain = driver()
    brain.handle(events.AppDefined(App("aider", max_concurrent_tasks=1)))
    brain.submit("writer", app="aider")
    brain.submit("writer", app="aider")  # its part of the room
    with pytest.raises(ResourceExhausted):
        brain.submit("writer", app="aider")


# When to come back.


def test_the_rate_is_that_of_times_in_which_tasks_wait() -> None:
    rate = DrainRate()
    assert rate.interval_s(0) is None
    rate.began(10)
    rate.departed(10.5, others_wait=True)
    assert rate.interval_s(10.5) is None, "how long the first waited says nothing"
    for quarter in range(1, 5):
        rate.departed(10.5 + quarter / 4, others_wait=quarter < 4)
    assert rate.interval_s(3600) == 0.25, "the quiet hour does not count"
    rate.began(3600)
    rate.departed(3601, others_wait=True)
    assert rate.interval_s(3601) == 0.25
    assert rate.interval_s(3611) == pytest.approx((4 * 0.25 + 10) / 5), "it stands still, so it is slower than it was"


def test_the_rate_follows_the_last_departures() -> None:
    rate = DrainRate()
    rate.began(0)
    for second in range(100):
        rate.departed(second, others_wait=True)
    for tenth in range(1, REMEMBERED + 1):
        rate.departed(99 + tenth / 10, others_wait=True)
    assert rate.interval_s(99 + REMEMBERED / 10) == pytest.approx(0.1)


def test_without_any_departure_a_second_is_told_and_the_next_client_a_second_more() -> None:
    full = queue(capacity=1)
    submit(full, "app")
    assert [_told_ms(full) for _ in range(3)] == [DEFAULT_RETRY_AFTER_MS * n for n in (1, 2, 3)]


def _told_ms(full: AdmissionQueue, app: str = "app") -> int:
    with pytest.raises(ResourceExhausted) as refused:
        full.make_room("interactive", app=app)
    assert refused.value.retry_after_ms is not None
    return refused.value.retry_after_ms


def test_each_app_is_told_by_how_fast_its_own_tasks_leave() -> None:
    full = queue(capacity=8)
    for app in ("slow", "fast"):
        fill(full, app)
    full.now = 10.0
    for app, interval in (("slow", 2.0), ("fast", 0.125)):
        began = full.now
        for number in range(3):
            full.now = began + number * interval
            full.remove(next(it for it in full.waiting_for("coder") if full[it].app == app))
        fill(full, app)
    assert _told_ms(full, "slow") > 4 * _told_ms(full, "fast")


@dataclass
class Obedient:
    """Clients that come back exactly when they were told, to one model with four slots that leave at about the same
    time. Returns how many were refused at first, how many of those got in at the first return, and the longest delay.
    """

    load: float
    seed: int = 1
    clients: int = 400
    capacity: int = 20
    service_s: float = 1.2

    def come(self) -> tuple[int, int, float]:
        rng, waiting = random.Random(self.seed), queue(self.capacity)  # noqa: S311  # a schedule, no secret
        todo: list[tuple[float, int, str, int]] = []
        numbers, running, refused, at_first_return, longest = count(), 0, 0, 0, 0.0
        at = 0.0
        for _ in range(self.clients):
            at += rng.expovariate(self.load * 4 / self.service_s)
            heappush(todo, (at, next(numbers), "comes", 0))
        while todo:
            waiting.now, _, what, returns = heappop(todo)
            if what == "ends":
                running -= 1
            else:
                try:
                    submit(waiting, "app")
                    at_first_return += returns == 1
                except ResourceExhausted as error:
                    refused += returns == 0
                    delay_s = (error.retry_after_ms or 0) / 1000
                    longest = max(longest, delay_s)
                    heappush(todo, (waiting.now + delay_s, next(numbers), "comes", returns + 1))
            while running < 4 and (task_id := next(waiting.heads("coder"), None)):
                waiting.take(task_id, 1)
                running += 1
                end = waiting.now + self.service_s * rng.uniform(0.9, 1.1)
                heappush(todo, (end, next(numbers), "ends", 0))
        return refused, at_first_return, longest


@pytest.mark.req("ORCH-1002")
@pytest.mark.parametrize("load", [1.3, 1.5, 3.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_nine_in_ten_clients_that_come_back_when_they_were_told_get_in(load: float, seed: int) -> None:
    clients = Obedient(load, seed)
    refused, at_first_return, longest_s = clients.come()
    assert refused > clients.clients / 3
    assert at_first_return >= 0.9 * refused
    in_truth_s = clients.clients * clients.service_s / 4 * (1 - 1 / load)
    assert longest_s <= 2 * in_truth_s + 1


def test_a_client_that_does_not_wait_does_not_delay_those_that_do() -> None:
    full = queue(capacity=20)
    fill(full, "app")
    for tick in range(1, 3000):  # a place each third of a second, and 50 requests in each
        full.now = tick / 50
        if tick % 16 == 0:
            full.remove(full.waiting_for("coder")[0])
        fill(full, "app")
    assert _told_ms(full) <= 700


def test_a_burst_is_not_taken_for_a_client_that_does_not_wait() -> None:
    full = queue(capacity=20)
    fill(full, "app")
    for second in range(1, 9):
        full.now = float(second)
        full.remove(full.waiting_for("coder")[0])
    full.now += 2 * EXPECTED_FOR_S
    fill(full, "app")
    told = [_told_ms(full) for _ in range(200)]
    assert told[-1] > 100 * told[0]
    assert max(told) <= MAX_RETRY_AFTER_MS


def test_newcomers_leave_a_few_places_to_those_on_their_way_back_and_not_for_long() -> None:
    full = queue(capacity=20)
    fill(full, "app")
    for _ in range(9):
        _told_ms(full)
    full.now = 0.5
    for task_id in full.waiting_for("coder")[: KEPT_FREE + 1]:
        full.remove(task_id)
    assert fill(full, "app") == 1
    full.now = 1.0
    full.make_room("interactive", app="app")  # the one that was told a second
    full.now = 1000.0
    assert fill(full, "app") == KEPT_FREE, "no client came"


def test_of_its_part_too_an_app_leaves_places_to_its_own_clients_on_their_way_back() -> None:
    full = queue(capacity=40)
    fill(full, "flood")
    assert fill(full, "calm") == 20, "and one more was told to come back"
    for task_id in [it for it in full.waiting_for("coder") if full[it].app == "calm"][:5]:
        full.remove(task_id)
    assert fill(full, "calm") == 4
    full.now = 1000.0
    assert fill(full, "calm") == 1


def test_what_is_expected_is_bounded() -> None:
    full = queue(capacity=1)
    submit(full, "app")
    told = [_told_ms(full) for _ in range(6000)]
    assert max(told) == MAX_RETRY_AFTER_MS
    assert told == sorted(told)


def test_a_client_is_told_no_sooner_than_the_first_slot_is_expected_to_be_free() -> None:
    brain = BrainDriver(BrainConfig(queue_capacity=2))
    brain.add_node("garage")
    brain.add_model("coder", size_mib=4000, vram_claim_mib=4000, slots=1, context=2048)
    brain.load_idle("coder")
    for _ in range(6):  # each takes ten seconds
        task_id = brain.submit("coder", prompt_tokens=10, max_tokens=10)
        brain.let_pass(10.0)
        brain.finish_attempt(next(a for a, it in brain.state.attempts.items() if it.task_id == task_id), tokens_out=10)
    for _ in range(3):
        brain.submit("coder", prompt_tokens=10, max_tokens=10)
    with pytest.raises(ResourceExhausted) as refused:
        brain.submit("coder", prompt_tokens=10, max_tokens=10)
    assert refused.value.retry_after_ms is not None
    assert 8_000 <= refused.value.retry_after_ms <= 12_000
