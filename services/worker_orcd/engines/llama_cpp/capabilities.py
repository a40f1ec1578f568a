"""What llama.cpp can do, as this engine uses it."""

from dataclasses import fields, replace

from llorch.gguf.facts import ModelFacts
from llorch.options.sampling import Sampling
from worker_orcd.engine_info import Capabilities, ResumeSupport

CAPABILITIES = Capabilities(
    resume=ResumeSupport.EXACT_IDS,
    generation=True,
    deterministic=True,
    logprobs=True,
    grammar=True,
    json_schema=True,
    tools=True,
    chat=True,
    embeddings=True,
    rerank=True,
    multiple_choices=True,
    sampling_options=frozenset(field.name for field in fields(Sampling)) | {"seed"},
)
"""With some model or other, on a device that proves to be deterministic."""


def capabilities_of(facts: ModelFacts, *, deterministic: bool, chat: bool, tools: bool) -> Capabilities:
    """With one model. `chat` and `tools` are those of its template."""
    if not facts.generates:
        return Capabilities(embeddings=not facts.ranks, rerank=facts.ranks)
    return replace(CAPABILITIES, deterministic=deterministic, chat=chat, tools=tools, rerank=False)
