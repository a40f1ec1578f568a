"""When a waiting task will start, and whether it will be done in time: from what was learnt, or not at all.

Times are in ms from now. None = not known; then clients are told nothing.
"""

import math

from llorch.worker_state import WorkerState
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.backlog import Backlog, TaskSize
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task, TaskRequest, TaskState
from orchestratord.core.learnt.answer_lengths import NO_ANSWER, Lengths
from orchestratord.core.learnt.estimates import Estimate, Remaining
from orchestratord.core.learnt.rates import SMALLEST_PROMPT, device_key
from orchestratord.core.placement import giving_way, replicas
from orchestratord.core.placement.cost import known_load_ms
from orchestratord.core.placement.warmth import warm_tokens
from orchestratord.core.state import BrainState

GUESSED_ANSWER = 256
"""Tokens of an answer of which nothing is known; only for shares and quotas, never shown to clients."""

GUESSED_RUN_S = 5.0
"""Seconds of a run of a model of which nothing is known; likewise."""

_OVERDUE = 0.3
_LENGTHS_LOOKED_AT = 16
_MANY_ANSWERS = 16
_BISECTIONS = 8
_SOON_MS, _LONGEST_MS = 64.0, 1e9
_FROM_20_TO_80_PERCENT = 1.683  # standard deviations
AT_ONCE = Estimate(0.0, 0.0)
_FREE = Remaining.of(AT_ONCE, passed=0.0, at_most=0.0)


def expected_tokens(state: BrainState, request: TaskRequest) -> int:
    """Tokens that a task will probably take, in and out; what its app is charged with until it is known better."""
    prompt = state.rates.prompt_tokens(request.model, request.prompt_tokens)
    return max(1, prompt + request.choices * expected_output(state, request))


def expected_output(state: BrainState, request: TaskRequest) -> int:
    """Tokens of one answer: as the last ones were, within what was asked for."""
    lengths = answer_lengths(state, request)
    if lengths.values:
        return round(lengths.mean)
    return GUESSED_ANSWER if request.max_tokens is None else min(GUESSED_ANSWER, request.max_tokens)


def answer_lengths(state: BrainState, request: TaskRequest) -> Lengths:
    """How long one answer may become."""
    if request.max_tokens == 0:
        return NO_ANSWER
    if request.max_tokens and request.fills_limit:
        return Lengths.of([request.max_tokens])
    return state.rates.answers.lengths(request.app, request.model, request.max_tokens)


def service_ms(state: BrainState, request: TaskRequest, worker: Worker, batch: int) -> Estimate | None:
    """Time from getting a slot of this worker, as one of `batch` runs, to the last token."""
    lengths = answer_lengths(state, request)
    prefill = prefill_ms(state, request, worker)
    if not lengths.values or prefill is None:
        return None
    decode = _per_token_ms(state, request, worker, batch, lengths)
    if decode is None:
        return None
    return prefill + decode.times(lengths.mean) + Estimate(0.0, lengths.spread * decode.mean, decode.count)


def expected_s(state: BrainState, request: TaskRequest, expected: Estimate | None) -> float:
    """For how long a task will probably hold its slot, with what `service_ms` expects of it; for shares only."""
    return holding_s(state, request.model) if expected is None else expected.mean / 1000


def holding_s(state: BrainState, model: str) -> float:
    """For how long runs of the model hold a slot; a guess where none was seen."""
    holding = state.rates.holding_ms(model)
    return GUESSED_RUN_S if holding is None else holding.mean / 1000


def run_s(state: BrainState, request: TaskRequest) -> float | None:
    """For how long such a task will hold its slot, where all slots are busy; None where that is not known."""
    worker = next(iter(state.fleet.workers_of_model(request.model)), None)
    holding = state.rates.holding_ms(request.model)
    expected = holding if worker is None else _holding_ms(state, worker, request.size, worker.slots)
    return None if expected is None else expected.mean / 1000


def busy_ms(state: BrainState, worker: Worker) -> float:
    """About how long it takes until all that runs there has ended, if nothing new comes: 0 if nothing runs. What runs
    for longer than it should goes on for a part of that again.
    """
    left = 0.0
    for attempt in (state.attempts[attempt_id] for attempt_id in worker.attempts):
        expected = _expected(state, worker, attempt)
        whole = GUESSED_RUN_S * 1000 if expected is None else expected.mean
        left = max(left, _OVERDUE * whole, whole - (state.now - attempt.began_at) * 1000)
    return left


def prefill_ms(state: BrainState, request: TaskRequest, worker: Worker) -> Estimate | None:
    """Time to evaluate what is not warm on this worker."""
    cold = state.rates.prompt_tokens(request.model, request.prompt_tokens)
    cold -= warm_tokens(state, request, worker.worker_id)
    if cold < SMALLEST_PROMPT:
        return AT_ONCE
    return state.rates.prefill_ms(request.model, device_of(state, worker), cold)


def predict_start_of(state: BrainState, task: Task, lane: Lane, ahead: Backlog) -> Estimate | None:
    """Of a task that waits. While its app is at its limit of tasks at once, free slots say nothing."""
    if task.request.app in state.queue.held:
        return None
    with_spread = task.request.deadline_s is not None
    return predict_start(state, lane, task.request.priority, ahead, with_spread=with_spread)


def predict_start(
    state: BrainState, lane: Lane, priority: str, ahead: Backlog, *, with_spread: bool = False
) -> Estimate | None:
    """Time until a task of the lane and class gets a slot that has those `ahead` before it. Its spread costs extra."""
    workers = replicas.workers_for(state, lane)
    slots = [slot for worker in workers for slot in _slots_of_worker(state, worker, priority) if slot is not None]
    if not slots:
        return None
    rounds, place = divmod(ahead.tasks, len(slots))
    begin = _nth_free(slots, place, with_spread=with_spread)
    if not rounds:
        return begin
    holding = _holding_of(state, workers[0], ahead)
    if holding is None:
        return None
    # A round is over when its mean run is: the more slots, the closer.
    wait = Estimate(holding.mean * rounds, holding.spread * math.sqrt(rounds / len(slots)), holding.count)
    return begin + wait


def first_free(state: BrainState, worker: Worker, priority: str) -> Estimate | None:
    """Time until a slot of this very worker is free for a task of the class, if no other task takes it."""
    slots = [slot for slot in _slots_of_worker(state, worker, priority) if slot is not None]
    return _nth_free(slots, 0, with_spread=False) if slots else None


def _holding_of(state: BrainState, worker: Worker, backlog: Backlog) -> Estimate | None:
    """How long the mean task of these holds a slot, once all slots are busy."""
    mean = variance = 0.0
    count = math.inf
    for size, tasks in backlog.parts():
        one = _holding_ms(state, worker, size, worker.slots)
        if one is None:
            return None
        mean, variance, count = mean + tasks * one.mean, variance + tasks * one.spread**2, min(count, one.count)
    return Estimate(mean / backlog.tasks, math.sqrt(variance / backlog.tasks), round(count))


def _holding_ms(state: BrainState, worker: Worker, size: TaskSize, batch: int) -> Estimate | None:
    """How long a task holds a slot: as such runs did, but no longer than its limit lets it; by its limit alone, where
    nothing else ends it.
    """
    most = None if size.limit is None else _most_ms(state, worker, size, size.limit, batch)
    if size.fills_limit:
        return most
    holding = state.rates.holding_ms(worker.spec.model)
    return most if holding is not None and most is not None and most.mean < holding.mean else holding


def _most_ms(state: BrainState, worker: Worker, size: TaskSize, limit: int, batch: int) -> Estimate | None:
    model, device = worker.spec.model, device_of(state, worker)
    prompt = state.rates.prompt_tokens(model, size.prompt_tokens)
    prefill = AT_ONCE if prompt < SMALLEST_PROMPT else state.rates.prefill_ms(model, device, prompt)
    decode = state.rates.decode_ms(model, device, batch, limit)
    return None if prefill is None or decode is None else prefill + decode


def on_time_forecast(state: BrainState, task: Task, start: Estimate) -> float | None:
    """How likely the last token comes before the deadline, if the task starts then. None without a deadline."""
    request = task.request
    if task.due_at is None:
        return None
    left_ms = (task.due_at - state.now) * 1000
    worker = next(iter(state.fleet.workers_of_model(request.model)), None)
    lengths = answer_lengths(state, request)
    if worker is None or not lengths.values:
        return None
    prefill = prefill_ms(state, request, worker)
    batch = min(worker.slots, len(worker.attempts) + 1)
    decode = _per_token_ms(state, request, worker, batch, lengths)
    if prefill is None or decode is None:
        return None
    sample = lengths.values[:: max(1, len(lengths.values) // _LENGTHS_LOOKED_AT)]
    begin = start + prefill
    return sum((begin + decode.times(length)).chance_below(left_ms) for length in sample) / len(sample)


def on_time_now(state: BrainState, task: Task) -> float | None:
    """The probability now: from what is left of the task's run; while it waits, as it was at its admission."""
    attempt = task.attempt
    if task.state is not TaskState.RUNNING or attempt is None or attempt.expected is None or task.on_time is None:
        return task.on_time
    left = Remaining.of(attempt.expected, (state.now - attempt.began_at) * 1000)
    return left.chance_within(_time_left_ms(state, attempt))


def _per_token_ms(
    state: BrainState, request: TaskRequest, worker: Worker, batch: int, lengths: Lengths
) -> Estimate | None:
    if not lengths.mean:
        return AT_ONCE
    return state.rates.decode_ms(request.model, device_of(state, worker), batch, 1)


def least_service_ms(state: BrainState, request: TaskRequest) -> float | None:
    """A time in which no such task was done yet: the shortest of many answers at the highest speed, its prompt warm."""
    lengths = answer_lengths(state, request)
    per_token_ms = state.rates.fastest_token_ms(request.model)
    if per_token_ms is None or len(lengths.values) < _MANY_ANSWERS:
        return None
    return lengths.values[0] * per_token_ms


def device_of(state: BrainState, worker: Worker) -> str:
    devices = state.fleet.nodes[worker.node_id].devices
    return device_key(devices[device_id].name for device_id in worker.spec.device_ids if device_id in devices)


def _slots_of_worker(state: BrainState, worker: Worker, priority: str) -> list[Remaining | None]:
    """When each will be free for a task of the class; None where that is not known."""
    if worker.state is WorkerState.STARTING:
        load = known_load_ms(state, worker.spec.model, worker.node_id)
        return [_left(state, load, worker.asked_at)] * worker.spec.slots
    if worker.state is not WorkerState.READY:
        return []
    attempts = [state.attempts[attempt_id] for attempt_id in worker.attempts]
    running = [
        _left(state, _expected(state, worker, attempt), attempt.began_at, _time_left_ms(state, attempt))
        for attempt in attempts
        if attempt.gives_way is None and not giving_way.gives_way(state, attempt, priority)
    ]
    return [*running, *[_FREE] * (worker.slots_free + len(attempts) - len(running))]


def _expected(state: BrainState, worker: Worker, attempt: Attempt) -> Estimate | None:
    """As it was expected when it began; if that was not known, by what is known now."""
    return attempt.expected or _holding_ms(state, worker, attempt.place.work, attempt.batch)


def _time_left_ms(state: BrainState, attempt: Attempt) -> float:
    """Until its task is ended by its deadline."""
    task = state.tasks.get(attempt.task_id)
    if task is None or task.due_at is None:
        return math.inf
    return max(0.0, task.due_at - state.now) * 1000


def _left(state: BrainState, whole: Estimate | None, began_at: float, at_most_ms: float = math.inf) -> Remaining | None:
    """None where it is not known, or has gone on for so long that what was expected says nothing any more."""
    if whole is None:
        return None
    remaining = Remaining.of(whole, (state.now - began_at) * 1000, at_most_ms)
    return None if remaining.is_overdue else remaining


def _nth_free(slots: list[Remaining], place: int, *, with_spread: bool) -> Estimate:
    """When the slot number `place` gets free, whichever it is: of many that may end any time, one ends soon.

    It is the time by which half a slot more than `place` should have ended. Normal quantiles around it give the spread.
    """
    mean = _time_until(slots, place + 0.5)
    if not with_spread or not mean:
        return Estimate(mean, 0.0)
    return Estimate(mean, (_time_until(slots, place + 0.8) - _time_until(slots, place + 0.2)) / _FROM_20_TO_80_PERCENT)


def _time_until(slots: list[Remaining], ended: float) -> float:
    """The time by which so many slots should be free, found by doubling and bisection."""
    if sum(slot.chance_within(0.0) for slot in slots) >= ended:
        return 0.0
    high = _SOON_MS
    while sum(slot.chance_within(high) for slot in slots) < ended and high < _LONGEST_MS:
        high *= 4
    low = high / 4 if high > _SOON_MS else 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if sum(slot.chance_within(middle) for slot in slots) < ended:
            low = middle
        else:
            high = middle
    return high if high >= 1 else 0.0
