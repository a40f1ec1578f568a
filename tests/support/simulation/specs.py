"""What the brain is told of a plan."""

from orchestratord.core.facts.model import ModelSpec
from support.simulation.plan import AskedModel


def model_spec(model: AskedModel) -> ModelSpec:
    return ModelSpec(
        model.name,
        f"file:/models/{model.name}.gguf",
        slots=model.slots,
        vram_claim_mib=model.claim_mib,
        idle_unload_s=model.idle_unload_s,
    )
