"""What a worker is told to load, as far as its answers can depend on it."""

from collections.abc import Sequence
from dataclasses import replace

from llorch.options.model import LoadOptions
from llorch.options.option import values_of
from llorch.worker_spec import WorkerSpec
from orchestratord.core.facts.fleet import Device
from orchestratord.core.facts.model import Model
from orchestratord.core.placement.engines import engine_for


def what_to_load(model: Model, devices: Sequence[Device], context: int) -> WorkerSpec:
    """Without an id, slots, memory and shares. `context` is what one request may use, in tokens."""
    options = values_of(LoadOptions, model.spec) | {"engine": engine_for(model, devices)}
    return WorkerSpec(
        worker_id="",
        model=model.name,
        source=model.spec.source,
        device_ids=tuple(device.device_id for device in devices),
        slots=0,
        context_per_slot=context,
        cache_type_k=model.cache_type,
        cache_type_v=model.cache_type,
        **options,
    )


def what_was_loaded(spec: WorkerSpec) -> WorkerSpec:
    """The same of a worker that was started."""
    return replace(spec, worker_id="", slots=0, tensor_split=(), reservation_mib=())
