"""Engines: their properties and fingerprints."""

from llama_orch.v2 import engine_pb2
from llorch.errors import FailedPrecondition, Reason
from llorch.rpc import fingerprints
from llorch.rpc.enum_table import EnumTable
from worker_orcd.engine_info import EngineInfo, Fingerprint, ResumeSupport

PROTOCOL_MIN = 1
PROTOCOL_MAX = 2
"""From 2 on a worker knows which attempt of which task a run is."""

_RESUME_SUPPORTS = EnumTable(ResumeSupport, engine_pb2.ResumeSupport)


def to_engine_info(info: EngineInfo) -> engine_pb2.EngineInfo:
    can = info.capabilities
    return engine_pb2.EngineInfo(
        engine=info.engine,
        engine_version=info.engine_version,
        model=info.model,
        context_trained=info.context_trained,
        context_per_slot=info.context_per_slot,
        slots=info.slots,
        max_admitted=info.max_admitted,
        vocabulary_size=info.vocabulary_size,
        capabilities=engine_pb2.EngineCapabilities(
            resume=_RESUME_SUPPORTS.to_proto(can.resume),
            deterministic=can.deterministic,
            logprobs=can.logprobs,
            grammar=can.grammar,
            json_schema=can.json_schema,
            tools=can.tools,
            chat=can.chat,
            embeddings=can.embeddings,
            rerank=can.rerank,
            generation=can.generation,
            multiple_choices=can.multiple_choices,
            sampling_options=sorted(can.sampling_options),
        ),
        fingerprint=to_fingerprint(info.fingerprint),
        simulated=info.simulated,
        cpu=info.cpu,
        load_ms=info.load_ms,
        memory_mib=info.memory_mib,
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
        metrics_address=info.metrics_address,
    )


def to_fingerprint(fingerprint: Fingerprint) -> engine_pb2.EngineFingerprint:
    return engine_pb2.EngineFingerprint(
        engine_version=fingerprint.engine_version,
        build=fingerprint.build,
        device_kind=fingerprint.device_kind,
        device=fingerprint.device,
        model_digest=fingerprint.model_digest,
        sampler_profile=fingerprint.sampler_profile,
        prefill_chunk=fingerprint.prefill_chunk,
        threads=fingerprint.threads,
        flash_attention=fingerprint.flash_attention,
        cache_type_k=fingerprint.cache_type_k,
        cache_type_v=fingerprint.cache_type_v,
        context_per_slot=fingerprint.context_per_slot,
    )


def refuse_other_promise(promised: str, own: Fingerprint) -> None:
    """Raises FailedPrecondition if bytes are promised under another fingerprint than this engine's.

    `promised` is its digest, empty if nothing is promised. The orchestrator has compared already: this finds what it
    was told wrong.
    """
    told = to_fingerprint(own)
    if promised and promised != fingerprints.digest_of(told):
        raise FailedPrecondition(
            Reason.DETERMINISM_UNAVAILABLE,
            "deterministic: the bytes are promised under another fingerprint than that of this worker, which has "
            f"{', '.join(fingerprints.words_of(told)) or 'none'}; "
            "restart its pool manager, which reports what it is",
        )
