"""What a run is asked to do, in the worker's own words.

Pure data. `convert` makes these from the contract; `validation` says which of them can be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is picked. The defaults are the contract's.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 switch their stage off.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that an engine has to declare before it is honoured.

    `field` is its path in the contract, `capability` the name under which engines declare it.
    """

    field: str
    capability: str


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One request as an engine gets it: `messages` for the model's chat template, or else a plain `prompt`.

    `max_tokens` None means as many as the context holds. `remaining_ms` is the time from now in which the run
    has to be finished. `seed` is 64 bits wide. `template_values` are variables for the chat template. A
    `deterministic` run gives the same bytes as when it runs alone.
    """

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    template_values: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    choices: int = 1
    deterministic: bool = False
    remaining_ms: int | None = None
    demands: tuple[Demand, ...] = ()
