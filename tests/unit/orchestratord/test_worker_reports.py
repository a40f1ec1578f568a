"""What the brain is told of a worker's fingerprint."""

import pytest

from llama_orch.v2 import engine_pb2, node_link_pb2, worker_pb2
from llorch.rpc import fingerprints
from orchestratord.convert.nodes import to_snapshot
from orchestratord.core.facts.promise import UNPROVEN, Fingerprint

pytestmark = pytest.mark.req("ORCH-1038")

TOLD = engine_pb2.EngineFingerprint(engine_version="sim 1", device="RTX 3090")


def fingerprint(engine: engine_pb2.EngineInfo) -> Fingerprint:
    worker = worker_pb2.Worker(
        spec=worker_pb2.WorkerSpec(worker_id="w", model="m"), state=worker_pb2.WORKER_STATE_READY, engine=engine
    )
    snapshot = to_snapshot(node_link_pb2.NodeSnapshot(workers=[node_link_pb2.WorkerReport(worker=worker)]))
    facts = snapshot.workers[0].engine
    assert facts is not None
    return facts.fingerprint


def test_one_that_is_proven_is_one_text_with_words() -> None:
    proven = engine_pb2.EngineCapabilities(deterministic=True)
    told = fingerprint(engine_pb2.EngineInfo(fingerprint=TOLD, capabilities=proven))
    assert told.digest == fingerprints.digest_of(TOLD)
    assert told.words == ("RTX 3090", "sim 1")
    assert told.is_same_as(Fingerprint(told.digest))


@pytest.mark.parametrize(
    "engine",
    [
        engine_pb2.EngineInfo(fingerprint=TOLD),
        engine_pb2.EngineInfo(capabilities=engine_pb2.EngineCapabilities(deterministic=True)),
    ],
    ids=["its start-up test failed", "it tells none"],
)
def test_one_that_is_not_proven_is_as_none_not_even_as_itself(engine: engine_pb2.EngineInfo) -> None:
    told = fingerprint(engine)
    assert told == UNPROVEN
    assert not told.is_same_as(told)
