"""About how many tokens a request brings, by the length of its text. What the worker counts corrects such guesses."""

from collections.abc import Iterator

from llama_orch.v2 import task_pb2

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


def guess_prompt_tokens(spec: task_pb2.TaskSpec) -> int:
    texts = list(_texts(spec))
    messages = len(spec.generate.chat.messages)
    return max(1, sum(map(len, texts)) // _CHARACTERS_PER_TOKEN + _TOKENS_PER_MESSAGE * messages)


def _texts(spec: task_pb2.TaskSpec) -> Iterator[str]:
    kind = spec.WhichOneof("work")
    if kind == "embed":
        yield from spec.embed.inputs
    elif spec.generate.WhichOneof("input") == "prompt":
        yield spec.generate.prompt
    else:
        for message in spec.generate.chat.messages:
            yield from (part.text for part in message.content)
            yield from (call.arguments for call in message.tool_calls)
        for tool in spec.generate.chat.tools:
            yield tool.description
            yield tool.parameters
