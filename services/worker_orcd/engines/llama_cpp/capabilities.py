"""What llama.cpp can do, as this engine uses it."""

from dataclasses import fields

from llorch.options.sampling import Sampling
from worker_orcd.engine_info import Capabilities, ResumeSupport

CAPABILITIES = Capabilities(
    resume=ResumeSupport.EXACT_IDS,
    deterministic=True,
    logprobs=True,
    grammar=True,
    json_schema=True,
    tools=True,
    chat=True,
    embeddings=True,
    multiple_choices=True,
    sampling_options=frozenset(field.name for field in fields(Sampling)) | {"seed"},
)
"""With a model whose template has tools, on a device that proves to be deterministic."""
