"""What can be told to be wrong with a run only with the model at hand. Before anything native sees the run."""

from llorch.errors import invalid_field
from worker_orcd.engines.llama_cpp.mirostat import check_state
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.sampler_chain import FORBIDS
from worker_orcd.engines.protocol import EngineRun


def check_sampling(run: EngineRun, model: Model) -> None:
    """Raises InvalidArgument."""
    sampling = run.spec.sampling
    for token_id in sampling.logit_bias:
        if token_id >= model.vocabulary_size:
            raise invalid_field(
                "generate.sampling.logit_bias",
                f"has the token id {token_id}; this model has {model.vocabulary_size} tokens",
            )
    forbidden = sum(bias <= FORBIDS for bias in sampling.logit_bias.values())
    if forbidden >= model.vocabulary_size:
        raise invalid_field("generate.sampling.logit_bias", "forbids every token of this model")
    if sampling.uses_mirostat:
        last_states = {entry.choice: entry.sampler_state for entry in run.prefix if entry.token_ids}
        for state in last_states.values():
            check_state(state)
