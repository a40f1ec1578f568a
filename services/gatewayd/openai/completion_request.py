"""`POST /v1/completions` as a task: the prompt goes to the model as it is."""

from typing import Any

from gatewayd.json_codec import decode_json
from gatewayd.openai.completion_shape import CompletionShape
from gatewayd.openai.fields import Fields, fill
from gatewayd.openai.generation import Generation
from gatewayd.openai.task_fields import take_constraint, take_stream, take_task
from gatewayd.scalar_shape import check_scalar
from llama_orch.v2 import task_pb2
from llorch.errors import invalid_field


def read_completion(body: bytes) -> Generation:
    """Raises InvalidArgument, which names the field."""
    fields = Fields(decode_json(body))
    stream = take_stream(fields)
    task = take_task(fields)
    work = task.generate
    fill(work, {"prompt": _only_prompt(fields)})
    _take_logprobs(fields, work)
    take_constraint(fields, work)
    fields.take_only("best_of", 1)
    fields.take_only("echo", False)
    fields.take_only("suffix", "")
    fields.finish()
    return Generation(task, CompletionShape(), stream)


def _only_prompt(fields: Fields) -> Any:
    prompt = fields.take("prompt")
    if prompt is None:
        raise invalid_field("prompt", "it is missing")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if isinstance(prompt, list):
        raise fields.unsupported("prompt", "send one text; several prompts are several requests")
    return prompt


def _take_logprobs(fields: Fields, work: task_pb2.GenerateWork) -> None:
    top = fields.take("logprobs")
    if top is not None:
        check_scalar(top, work.DESCRIPTOR.fields_by_name["top_logprobs"], "logprobs")
        fill(work, {"top_logprobs": top})
