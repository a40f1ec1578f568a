"""When a waiting task will start, and whether it will be done in time: from what was learnt, or not at all.

Times are in ms from now. None = not known; then nothing is said.
"""

import math

from orchestratord.core.estimates import Estimate
from orchestratord.core.fleet import Worker, WorkerState
from orchestratord.core.rates import SMALLEST_PROMPT, device_key
from orchestratord.core.state import BrainState
from orchestratord.core.task import Attempt, Task, TaskRequest

GUESSED_ANSWER = 256
"""Tokens of an answer of which nothing is known; only for shares, never for what people are told."""

_LENGTHS_LOOKED_AT = 16
_OVERDUE_SHARE = 0.2
AT_ONCE = Estimate(0.0, 0.0)


def expected_tokens(state: BrainState, request: TaskRequest) -> int:
    """Tokens that a task will probably take, in and out; what its app is charged with until it is known better."""
    prompt = state.rates.prompt_tokens(request.model, request.prompt_tokens)
    return max(1, prompt + request.choices * expected_output(state, request))


def expected_output(state: BrainState, request: TaskRequest) -> int:
    """Tokens of one answer: as the last ones were, within what was asked for."""
    lengths = answer_lengths(state, request)
    if lengths:
        return round(sum(lengths) / len(lengths))
    return GUESSED_ANSWER if request.max_tokens is None else min(GUESSED_ANSWER, request.max_tokens)


def answer_lengths(state: BrainState, request: TaskRequest) -> list[int]:
    """How long the answer may become, each as likely as the others, in order; empty if nothing is known."""
    if request.max_tokens == 0:
        return [0]
    return sorted(answer.within(request.max_tokens) for answer in state.rates.answers(request.app, request.model))


def service_ms(state: BrainState, request: TaskRequest, worker: Worker, batch: int) -> Estimate | None:
    """Time from getting a slot of this worker, as one of `batch` runs, to the last token."""
    lengths = answer_lengths(state, request)
    prefill = prefill_ms(state, request, worker)
    if not lengths or prefill is None:
        return None
    mean = sum(lengths) / len(lengths)
    decode = state.rates.decode_ms(request.model, device_of(state, worker), batch, 1) if mean else AT_ONCE
    if decode is None:
        return None
    spread = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
    return prefill + decode.times(mean) + Estimate(0.0, spread * decode.mean)


def prefill_ms(state: BrainState, request: TaskRequest, worker: Worker) -> Estimate | None:
    """Time to evaluate what is not warm on this worker."""
    warm = state.sessions.warm_tokens(request.app, request.session_id, worker.worker_id)
    cold = state.rates.prompt_tokens(request.model, request.prompt_tokens) - warm
    if cold < SMALLEST_PROMPT:
        return AT_ONCE
    return state.rates.prefill_ms(request.model, device_of(state, worker), cold)


def predict_start(state: BrainState, model: str, ahead: int) -> Estimate | None:
    """Time until a task of the model gets a slot that has `ahead` tasks before it."""
    slots = _slots(state, model)
    if not slots:
        return None
    rounds, place = divmod(ahead, len(slots))
    if not rounds:
        return slots[place]
    holding = state.rates.holding_ms(model)
    if holding is None:
        return None
    # A round is over when its mean run is: the more slots, the closer.
    wait = Estimate(holding.mean * rounds, holding.spread * math.sqrt(rounds / len(slots)), holding.count)
    return slots[place] + wait


def on_time_probability(state: BrainState, task: Task, start: Estimate) -> float | None:
    """How likely the last token comes before the deadline, if the task starts then. None without a deadline."""
    request = task.request
    if request.deadline_s is None:
        return None
    left_ms = (task.created_at + request.deadline_s - state.now) * 1000
    worker = next(iter(state.fleet.workers_of_model(request.model)), None)
    lengths = answer_lengths(state, request)
    if worker is None or not lengths:
        return None
    prefill = prefill_ms(state, request, worker)
    batch = min(_slots_of(worker), len(worker.attempts) + 1)
    decode = state.rates.decode_ms(request.model, device_of(state, worker), batch, 1) if lengths[-1] else AT_ONCE
    if prefill is None or decode is None:
        return None
    sample = lengths[:: max(1, len(lengths) // _LENGTHS_LOOKED_AT)]
    begin = start + prefill
    return sum((begin + decode.times(length)).chance_below(left_ms) for length in sample) / len(sample)


def least_service_ms(state: BrainState, request: TaskRequest) -> float | None:
    """A time in which no such task was ever done: on the fastest device, alone, with the shortest answer."""
    lengths = answer_lengths(state, request)
    if not lengths:
        return None
    times = [
        _at_least(state.rates.decode_ms(request.model, device, 1, lengths[0])) + _least_prefill(state, request, device)
        for device in state.rates.devices_of(request.model)
    ]
    return min(times, default=None)


def device_of(state: BrainState, worker: Worker) -> str:
    devices = state.fleet.nodes[worker.node_id].devices
    return device_key(devices[device_id].name for device_id in worker.spec.device_ids if device_id in devices)


def _least_prefill(state: BrainState, request: TaskRequest, device: str) -> float:
    """Nothing for a session: its prompt may be warm."""
    if request.session_id:
        return 0.0
    return _at_least(state.rates.prefill_ms(request.model, device, request.prompt_tokens // 2))


def _at_least(estimate: Estimate | None) -> float:
    return max(0.0, estimate.mean - 2 * estimate.spread) if estimate else 0.0


def _slots(state: BrainState, model: str) -> list[Estimate]:
    """When each slot of the model's workers is free next, soonest first; without those of which it is not known."""
    workers = (worker for worker in state.fleet.workers_of_model(model) if state.fleet.node_is_ready(worker))
    slots = (slot for worker in workers for slot in _slots_of_worker(state, worker) if slot is not None)
    return sorted(slots, key=lambda slot: slot.mean)


def _slots_of_worker(state: BrainState, worker: Worker) -> list[Estimate | None]:
    if worker.state is WorkerState.STARTING:
        return [_ready_in_ms(state, worker)] * worker.spec.slots
    if worker.state is not WorkerState.READY:
        return []
    running = [_left_ms(state, state.attempts[attempt_id], worker.spec.model) for attempt_id in worker.attempts]
    return [*running, *[AT_ONCE] * worker.slots_free]


def _ready_in_ms(state: BrainState, worker: Worker) -> Estimate | None:
    load = state.rates.load_ms(worker.spec.model, worker.node_id)
    if load is None:
        return None
    left_ms = load.mean - (state.now - worker.asked_at) * 1000
    return Estimate(max(left_ms, _OVERDUE_SHARE * load.mean), load.spread, load.count)


def _left_ms(state: BrainState, attempt: Attempt, model: str) -> Estimate | None:
    """Until a run gives its slot back. One that takes longer than expected goes on for a part of that."""
    expected = attempt.expected or state.rates.holding_ms(model)
    if expected is None:
        return None
    left_ms = expected.mean - (state.now - attempt.began_at) * 1000
    return Estimate(max(left_ms, _OVERDUE_SHARE * expected.spread), expected.spread, expected.count)


def _slots_of(worker: Worker) -> int:
    return worker.engine.slots if worker.engine else worker.spec.slots
