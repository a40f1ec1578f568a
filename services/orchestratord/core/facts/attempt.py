"""One try to carry out a task."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum

from llorch.errors import Reason
from orchestratord.core.facts.admission import Waiting
from orchestratord.core.learnt.estimates import Estimate

NOT_NOW = frozenset({Reason.NO_FREE_SLOT, Reason.DRAINING, Reason.WORKER_NOT_READY})
"""What a worker refuses a task with, and says of itself and not of the task: a slot is free in the fleet's table once
its run is cancelled, and in the worker once its engine's step is over.
"""


class Loss(StrEnum):
    """Why an attempt was lost. The values are labels of metrics."""

    EXIT = "exit"
    """Its worker ended by itself."""
    LEASE = "lease"
    """Its worker could not be attached to again in time."""
    NODE = "node"
    """Its node is lost, or came back without its worker."""
    POWER = "power"
    """The machine of its node was started again."""
    POISON = "poison"
    """Its worker ended, and another task there is under suspicion."""
    UNKNOWN = "unknown"
    """Its worker does not know it, or has given it up."""
    STOPPED = "stopped"
    """Its worker was told to stop."""


@dataclass(slots=True)
class Attempt:
    """One execution of a task on one worker. Its slot is held until the attempt ended, is unknown, or is lost.

    `place` is where the task waited, `charged` the tokens that count in its app's quota from the start, `served` those
    that it took, once they are known. `share` is the part of a device that it takes, `charged_s` the device-seconds
    that its app's account was charged with at the start. `expected` is how long it should take, in ms, `batch` how many
    ran there when it began, itself included. `made_promise`: no earlier attempt can have shown output of the
    deterministic task. `resumes`: its engine can be asked to go on after output that exists, so that another one like
    it can take over. `has_output`: some of the task's output came of it. `is_counted`: it takes one of the tasks at
    once of its app. `has_grant`: it gives way to no task of a higher class. `gives_way`: it has, to tasks of this class
    and lane, and is about to end. `tokens_in` are those of the prompt, `cached_tokens` the part of them that was in the
    worker's KV cache: 0 until it has begun. `prompt` is what the index of warm prompts has of it.
    """

    attempt_id: str
    number: int
    task_id: str
    worker_id: str
    place: Waiting
    charged: int
    share: float
    charged_s: float
    began_at: float
    batch: int
    session_id: str = ""
    expected: Estimate | None = None
    made_promise: bool = False
    resumes: bool = False
    has_output: bool = False
    is_counted: bool = True
    has_grant: bool = False
    gives_way: tuple[str, Hashable] | None = None
    served: int | None = None
    started: bool = False
    ended: bool = False
    tokens_in: int = 0
    cached_tokens: int = 0
    prompt: int | None = None
