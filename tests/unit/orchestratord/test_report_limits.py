"""What a node may report: what people look at is cut, the rest is refused by name, and many models are of use."""

import pytest

from llama_orch.v2 import device_pb2, node_link_pb2, node_pb2, pool_pb2, worker_pb2
from llorch.errors import InvalidArgument
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.convert.link_snapshots import LinkSnapshots
from orchestratord.convert.report_limits import MOST_LABELS, MOST_MODELS, MOST_PROCESSES, check_register, fit
from orchestratord.core import effects
from orchestratord.core.facts.fleet import MOST_DEVICES, MOST_WORKERS, Snapshot, WorkerReported
from support.brain_driver import BrainDriver, gpu


def snapshot(**lists: object) -> node_link_pb2.NodeSnapshot:
    return node_link_pb2.NodeSnapshot(full=True, **lists)  # type: ignore[arg-type]  # tests name fields


def report(worker_id: str = "w", **fields: object) -> node_link_pb2.WorkerReport:
    spec = worker_pb2.WorkerSpec(worker_id=worker_id)
    worker = worker_pb2.Worker(spec=spec, state=worker_pb2.WORKER_STATE_READY, **fields)  # type: ignore[arg-type]
    return node_link_pb2.WorkerReport(worker=worker)


def test_a_folder_of_5000_models_is_offered_whole() -> None:
    models = [node_pb2.StagedModel(source=f"dir:m-{n}.gguf", name=f"m-{n}", size_mib=1) for n in range(5000)]
    told: list[str] = []
    taken = LinkSnapshots(told.append).take(snapshot(staged_models=models))
    assert len(taken.offered) == len(taken.staged) == 5000
    assert told == []


def test_of_more_models_the_first_are_taken_and_that_is_told_once() -> None:
    models = [node_pb2.StagedModel(source=f"dir:m-{n}.gguf") for n in range(MOST_MODELS + 1)]
    models.insert(0, node_pb2.StagedModel(source="x" * 9000))
    told: list[str] = []
    link = LinkSnapshots(told.append)
    for _ in range(2):
        taken = link.take(snapshot(staged_models=models))
        assert list(taken.staged) == [f"dir:m-{n}.gguf" for n in range(MOST_MODELS - 1)]
    assert [sentence.split(";")[0] for sentence in told] == [
        f"it has {MOST_MODELS + 2} model files",
        "1 of its model files have names of more than 8192 bytes and are left out",
    ]


def test_programs_of_a_device_are_cut() -> None:
    processes = [device_pb2.DeviceProcess(pid=n, name="x") for n in range(1000)]
    given = snapshot(devices=[device_pb2.Device(device_id="GPU-1", processes=processes)])
    assert fit(given) == [f"1000 programs hold memory of GPU-1; {MOST_PROCESSES} are shown"]
    assert len(given.devices[0].processes) == MOST_PROCESSES


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (
            snapshot(devices=[device_pb2.Device()] * (MOST_DEVICES + 1)),
            "snapshot.devices: has 129 entries; at most 128",
        ),
        (snapshot(devices=[device_pb2.Device(device_id="x" * 257)]), "device_id: has 257 characters"),
        (
            snapshot(devices=[device_pb2.Device(device_id="G", engines=["x" * 70_000])]),
            r"devices\[G\]: has 70\d+ bytes",
        ),
        (snapshot(pools=[pool_pb2.Pool(pool_id="p", device_ids=["x" * 100] * 1000)]), r"pools\[p\]: has \d+ bytes"),
        (snapshot(workers=[report()] * (MOST_WORKERS + 1)), "snapshot.workers: has 1025 entries"),
        (snapshot(workers=[report("w", node_id="x" * 300_000)]), r"workers\[w\]: has 300\d+ bytes; at most 262144"),
    ],
    ids=["devices", "an id", "a device", "a pool", "workers", "a worker"],
)
def test_what_decisions_are_made_on_is_refused_by_name(given: node_link_pb2.NodeSnapshot, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what):
        fit(given)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"labels": {f"k{n}": "v" for n in range(MOST_LABELS + 1)}}, f"register.labels: has {MOST_LABELS + 1} entries"),
        ({"labels": {"k": "v" * 257}}, r"register.labels\[k\]: has 257 characters"),
        ({"version": "v" * 257}, "register.version: has 257 characters"),
        ({"advertise_address": "v" * 257}, "register.advertise_address"),
    ],
)
def test_a_registration_is_bounded(fields: dict[str, object], what: str) -> None:
    check_register(node_link_pb2.Register(node_id="garage", labels={"rack": "1"}))
    with pytest.raises(InvalidArgument, match=what):
        check_register(node_link_pb2.Register(**fields))  # type: ignore[arg-type]  # tests name fields


def test_reports_of_changes_add_up_to_no_more() -> None:
    """Each of them is small."""
    link = LinkSnapshots()
    for number in range(2 * MOST_WORKERS):
        link.take(node_link_pb2.NodeSnapshot(workers=[report(f"w-{number}")]))
    with pytest.raises(InvalidArgument, match="since its last full report"):
        link.take(node_link_pb2.NodeSnapshot(workers=[report("one-more")]))
    driver = BrainDriver()
    driver.add_node("garage", gpu("GPU-1"))
    for number in range(MOST_DEVICES + 50):
        driver.report("garage", Snapshot(full=False, devices=(gpu(f"GPU-new-{number}"),)))
    assert len(driver.state.fleet.nodes["garage"].devices) == MOST_DEVICES
    for number in range(MOST_WORKERS + 50):
        spec = WorkerSpec(f"w-{number}", "m", "file:/m.gguf", ("GPU-1",), 1, 2048, reservation_mib=(1,))
        driver.report("garage", Snapshot(full=False, workers=(WorkerReported(spec, WorkerState.STARTING),)))
    assert len(driver.state.fleet.workers_on("garage")) == MOST_WORKERS
    warnings = [effect.text for effect in driver.all_of(effects.WarnOfNode)]
    assert warnings == ["it has more than 128 devices", "it has more than 1024 workers"]
