"""One try to carry out a task."""

from dataclasses import dataclass

from orchestratord.core.facts.admission import Waiting
from orchestratord.core.learnt.estimates import Estimate


@dataclass(slots=True)
class Attempt:
    """One execution of a task on one worker. Its slot is held until the attempt ended, is unknown, or is lost.

    `place` is where the task waited, `charged` the tokens that its app was charged with at the start, `served` those
    that it took, once they are known. `expected` is how long it should take, in ms, `batch` how many ran there when it
    began, itself included. `made_promise`: no earlier attempt can have shown output of the deterministic task.
    `tokens_in` are those of the prompt, `cached_tokens` the part of them that was in the worker's KV cache: 0 until it
    has begun.
    """

    attempt_id: str
    number: int
    task_id: str
    worker_id: str
    place: Waiting
    charged: int
    began_at: float
    batch: int
    session_id: str = ""
    expected: Estimate | None = None
    made_promise: bool = False
    served: int | None = None
    started: bool = False
    ended: bool = False
    tokens_in: int = 0
    cached_tokens: int = 0
