"""Where the metrics of workers are, in the form of Prometheus' HTTP service discovery (`http_sd_configs`).

Each worker listens on a port of its own, and workers come and go: a list that is written by hand would be wrong at
once. The orchestrator knows all of them anyway. It relays no metrics: a scrape of a worker must not depend on it.
"""

import json
from collections.abc import Iterable

from llama_orch.v2 import worker_pb2
from llorch.ports import is_wildcard_host, join_address, split_address
from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Worker


def scrape_targets(workers: Iterable[Worker]) -> bytes:
    """The id of a worker is a `__meta_` label: as one of each sample, every load would begin new series."""
    found = [
        {"targets": [address], "labels": {"node": worker.node_id, "__meta_llorch_worker_id": worker.worker_id}}
        for worker in sorted(workers, key=lambda worker: worker.worker_id)
        if worker.state is WorkerState.READY and (address := _address(worker))
    ]
    return json.dumps(found).encode()


def _address(worker: Worker) -> str:
    """A worker that listens on all addresses is found at the one where the orchestrator finds it; empty if it serves
    no metrics.
    """
    if not isinstance(worker.report, worker_pb2.Worker) or not worker.report.engine.metrics_address:
        return ""
    host, port = split_address(worker.report.engine.metrics_address)
    if is_wildcard_host(host) and worker.endpoint is not None:
        host = split_address(worker.endpoint.address)[0]
    return join_address(host, port)
