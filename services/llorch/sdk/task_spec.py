"""From what a caller says to the contract's description of a task."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from llama_orch.v2 import task_pb2
from llorch.errors import invalid_field
from llorch.sdk.refusal import refusing

Prompt = str | Sequence[Mapping[str, str]]
"""A text, which becomes the one message of a user; or messages like `{"role": "user", "content": "Hello"}`."""


class GenerateOptions(TypedDict, total=False):
    """What may be said about a task beside model and prompt. What is absent is the orchestrator's default.

    `system` goes before the prompt as a message of the role "system". `raw=True` gives a text prompt to the model
    as it is, without its chat template. `deadline_ms` is counted from now. `request_id` makes a repeated call the
    same task. The rest is explained at `GenerateWork`, `Sampling` and `TaskSpec` of the contract.
    """

    system: str | None
    raw: bool
    max_tokens: int | None
    stop: Sequence[str]
    ignore_eos: bool
    n: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    session_id: str
    priority: str
    deadline_ms: int | None
    deterministic: bool
    request_id: str


_WORK = ("max_tokens", "ignore_eos", "n")
_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)
_TASK = ("session_id", "priority", "deadline_ms", "deterministic", "request_id")


def generate_spec(model: str, prompt: Prompt, options: GenerateOptions) -> task_pb2.TaskSpec:
    """Raises InvalidArgument for what the contract's types can't hold; ranges are the orchestrator's business."""
    unknown = options.keys() - GenerateOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(sorted(GenerateOptions.__annotations__))
        raise invalid_field(min(unknown), f"is no option; there are {known}")
    spec = task_pb2.TaskSpec()
    with refusing("model", model):
        spec.model = model
    _set_input(spec.generate, prompt, options)
    with refusing("stop", options.get("stop")):
        spec.generate.stop.extend(options.get("stop", ()))
    _set(spec.generate, _WORK, options)
    _set(spec.generate.sampling, _SAMPLING, options)
    _set(spec, _TASK, options)
    return spec


def _set_input(work: task_pb2.GenerateWork, prompt: Prompt, options: GenerateOptions) -> None:
    system = options.get("system")
    if options.get("raw"):
        if not isinstance(prompt, str) or system:
            raise invalid_field("raw", "goes with a text prompt, and without a system message")
        with refusing("prompt", prompt):
            work.prompt = prompt
        return
    if system:
        _add_message(work.chat, {"role": "system", "content": system})
    for message in [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt:
        _add_message(work.chat, message)


def _add_message(chat: task_pb2.ChatInput, message: Mapping[str, str]) -> None:
    if message.keys() != {"role", "content"}:
        raise invalid_field("messages", 'a message has "role" and "content", and nothing else')
    with refusing("messages", message):
        chat.messages.add(role=message["role"], content=[task_pb2.ContentPart(text=message["content"])])


def _set(target: Any, fields: Sequence[str], options: GenerateOptions) -> None:
    for field in fields:
        value = options.get(field)
        if value is not None:
            with refusing(field, value):
                setattr(target, field, value)
