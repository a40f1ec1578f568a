"""How a task and its queue are doing, for one reader of its stream."""

from llama_orch.v2 import task_event_pb2
from orchestratord.convert.task_events import OutputLog
from orchestratord.core.facts.task import Task
from orchestratord.core.placement.prediction import on_time_now
from orchestratord.runtime.brain_owner import BrainOwner

_SHORTEST_S = 0.1
"""Over less than that a rate says nothing."""


class TaskMetrics:
    """Tokens per second are those since the last metrics, or since the reader attached, but none of the time before the
    first token. They are 0 as long as there is too little to measure.
    """

    def __init__(self, owner: BrainOwner, task: Task, log: OutputLog, now: float) -> None:
        self._owner = owner
        self._task = task
        self._log = log
        self._taken_at = now
        self._tokens = log.tokens

    def take(self) -> task_event_pb2.Metrics:
        now, tokens = self._owner.now(), self._log.tokens
        if tokens and not self._tokens:
            first_at = self._task.first_token_at
            self._taken_at = now if first_at is None else first_at
            self._tokens = len(self._log.choices())  # the first token of each
        rate = 0.0
        if now - self._taken_at >= _SHORTEST_S:
            rate = (tokens - self._tokens) / (now - self._taken_at)
            self._taken_at, self._tokens = now, tokens
        state, request, attempt = self._owner.state, self._task.request, self._task.attempt
        return task_event_pb2.Metrics(
            queue_depth=state.queue.depth(request.priority),
            on_time_probability=on_time_now(state, self._task),
            tokens_per_second=rate,
            kv_warm_tokens=attempt.cached_tokens if attempt else 0,
        )
