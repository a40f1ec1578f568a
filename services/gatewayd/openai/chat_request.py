"""`POST /v1/chat/completions` as a task."""

from gatewayd.json_codec import decode_json
from gatewayd.openai.chat_shape import ChatShape
from gatewayd.openai.fields import Fields, fill
from gatewayd.openai.generation import Generation
from gatewayd.openai.messages import read_message
from gatewayd.openai.task_fields import take_constraint, take_stream, take_task
from gatewayd.openai.tools import read_tool, read_tool_choice
from gatewayd.scalar_shape import check_scalar
from llama_orch.v2 import task_pb2
from llorch.errors import invalid_field

_SERVED_BY_ITSELF = "prompts are cached by themselves; session_id keeps a conversation where it is warm"
_UNSUPPORTED = {
    "audio": "answers are text",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "moderation": "leave it out",
    "prediction": "leave it out",
    "prompt_cache_options": _SERVED_BY_ITSELF,
    "prompt_cache_retention": _SERVED_BY_ITSELF,
    "reasoning_effort": "set what the model's chat template knows in template_values",
    "verbosity": "leave it out",
    "web_search_options": "leave it out",
}


def read_chat(body: bytes) -> Generation:
    """Raises InvalidArgument, which names the field."""
    fields = Fields(decode_json(body))
    stream = take_stream(fields)
    task = take_task(fields)
    work = task.generate
    _take_input(fields, work.chat)
    _take_newer_limit(fields, work)
    _take_continued(fields, work)
    _take_logprobs(fields, work)
    take_constraint(fields, work)
    fields.take_only("parallel_tool_calls", True)
    fields.take_only("modalities", ["text"])
    fields.take_only("service_tier", "auto", "default")
    fields.take_only("store", False)
    fields.finish(_UNSUPPORTED)
    return Generation(task, ChatShape(), stream)


def _take_input(fields: Fields, chat: task_pb2.ChatInput) -> None:
    messages = fields.take_items("messages")
    if not messages:
        raise invalid_field("messages", "at least one message is needed")
    for value, path in messages:
        fill(chat.messages.add(), read_message(value, path), path)
    for value, path in fields.take_items("tools"):
        fill(chat.tools.add(), read_tool(value, path), path)
    choice = fields.take("tool_choice")
    if choice is not None:
        fill(chat, {"tool_choice": read_tool_choice(choice)})
    fill(chat, {"template_values": fields.take_json("template_values")})


def _take_newer_limit(fields: Fields, work: task_pb2.GenerateWork) -> None:
    """`max_completion_tokens` is what `max_tokens` is called now."""
    name = "max_completion_tokens"
    limit = fields.take(name)
    if limit is None:
        return
    check_scalar(limit, work.DESCRIPTOR.fields_by_name["max_tokens"], name)
    if work.HasField("max_tokens") and work.max_tokens != limit:
        raise invalid_field(name, "max_tokens says something else; give one of them")
    fill(work, {"max_tokens": limit})


def _take_continued(fields: Fields, work: task_pb2.GenerateWork) -> None:
    """`continue_final_message` is what other servers of open models call `continue_last_message`; some of them want
    `add_generation_prompt` to be false beside it.
    """
    continued, begins = fields.take_flag("continue_final_message"), fields.take_flag("add_generation_prompt")
    if continued is False and work.continue_last_message:
        raise invalid_field("continue_final_message", "continue_last_message says something else; give one of them")
    if continued:
        fill(work, {"continue_last_message": True})
    if begins is not None and begins is work.continue_last_message:
        instead = "it is true unless continue_final_message is, and then it is false; leave it out"
        raise invalid_field("add_generation_prompt", instead)


def _take_logprobs(fields: Fields, work: task_pb2.GenerateWork) -> None:
    wanted, top = fields.take_flag("logprobs"), fields.take("top_logprobs")
    if wanted:
        fill(work, {"top_logprobs": top or 0})
    elif top is not None:
        raise invalid_field("top_logprobs", "it needs logprobs to be true")
