"""From the arguments of a caller to the contract's description of a task."""

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import Descriptor

from llama_orch.v2 import task_pb2
from llorch.errors import invalid_field
from llorch.sdk.fill import fill
from llorch.sdk.refusal import unknown, wrong_type
from llorch.sdk.scalar import text
from llorch.sdk.task_options import GenerateOptions, Prompt, TaskOptions, Texts


def generate_spec(model: str, prompt: Prompt, options: GenerateOptions) -> task_pb2.TaskSpec:
    """Raises InvalidArgument for what the contract's types can't hold; ranges are the orchestrator's business."""
    _check_names(options, GenerateOptions.__annotations__)
    spec = task_pb2.TaskSpec()
    fill(spec, {"model": model, **_fields_of(spec.DESCRIPTOR, options)})
    work = spec.generate
    _set_input(work, prompt, options)
    for message in (work, work.sampling, work.output_constraint):
        fill(message, _fields_of(message.DESCRIPTOR, options))
    return spec


def embed_spec(model: str, inputs: Texts, options: TaskOptions) -> task_pb2.TaskSpec:
    """As `generate_spec`."""
    spec = _reading_spec(model, options)
    spec.embed.SetInParent()
    fill(spec.embed, {"inputs": inputs})
    return spec


def rerank_spec(model: str, query: str, documents: Texts, top_n: int | None, options: TaskOptions) -> task_pb2.TaskSpec:
    """As `generate_spec`."""
    spec = _reading_spec(model, options)
    spec.rerank.SetInParent()
    fill(spec.rerank, {"query": query, "documents": documents, "top_n": top_n or 0})
    return spec


def _reading_spec(model: str, options: TaskOptions) -> task_pb2.TaskSpec:
    _check_names(options, TaskOptions.__annotations__)
    spec = task_pb2.TaskSpec()
    fill(spec, {"model": model, **_fields_of(spec.DESCRIPTOR, options)})
    return spec


def _check_names(options: Mapping[str, object], known: Mapping[str, object]) -> None:
    for name in options:
        if name not in known:
            raise unknown(name, name, known)


def _fields_of(kind: Descriptor, options: Mapping[str, object]) -> dict[str, object]:
    """The options that are fields of this message. No two messages of a task share an option's name."""
    return {name: value for name, value in options.items() if name in kind.fields_by_name and value is not None}


def _set_input(work: task_pb2.GenerateWork, prompt: Prompt, options: GenerateOptions) -> None:
    about_chat = _fields_of(work.chat.DESCRIPTOR, options)
    raw = options.get("raw") or False
    if not isinstance(raw, bool):
        raise wrong_type("raw", raw, "True or False")
    if not raw:
        _set_chat(work.chat, prompt, options.get("system"))
        fill(work.chat, about_chat)
    elif not isinstance(prompt, str) or options.get("system") or about_chat:
        raise invalid_field("raw", "goes with a text prompt, and without system, tools, tool_choice, template_values")
    else:
        fill(work, {"prompt": prompt})


def _set_chat(chat: task_pb2.ChatInput, prompt: Prompt, system: str | None) -> None:
    if system:
        chat.messages.add(role="system").content.add(text=text(system, "system"))
    if isinstance(prompt, str):
        chat.messages.add(role="user").content.add(text=text(prompt, "prompt"))
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        fill(chat, {"messages": prompt})
    else:
        raise wrong_type("prompt", prompt, 'text, or a list of messages like {"role": "user", "content": "Hello"}')
