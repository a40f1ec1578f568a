"""Models: those that are being staged, and those that are here."""

from llama_orch.v2 import node_pb2, pool_manager_service_pb2
from llorch.rpc import model_facts
from pool_managerd.models.digest import DigestProgress
from pool_managerd.models.download.progress import Progress
from pool_managerd.models.located_model import LocatedModel

_MIB = 2**20


def to_progress(progress: Progress) -> pool_manager_service_pb2.StageProgress:
    """Of a file that is still coming."""
    total = progress.total
    return pool_manager_service_pb2.StageProgress(
        done_mib=progress.done // _MIB,
        total_mib=None if total is None else -(-total // _MIB),
        mib_per_second=progress.bytes_per_s / _MIB,
    )


def to_complete_progress(model: LocatedModel) -> pool_manager_service_pb2.StageProgress:
    size_mib = _size_mib(model)
    return pool_manager_service_pb2.StageProgress(
        done_mib=size_mib, total_mib=size_mib, complete=True, facts=model_facts.to_proto(model.facts)
    )


def to_verification(reading: DigestProgress, model: LocatedModel) -> pool_manager_service_pb2.VerifyStagedModelResponse:
    return pool_manager_service_pb2.VerifyStagedModelResponse(
        done_mib=reading.done_bytes // _MIB, total_mib=_size_mib(model), digest=reading.digest
    )


def to_staged_model(model: LocatedModel) -> node_pb2.StagedModel:
    return node_pb2.StagedModel(
        source=model.reference, size_mib=_size_mib(model), digest=model.digest, name=model.offered_as
    )


def _size_mib(model: LocatedModel) -> int:
    return -(-model.size_bytes // _MIB)
