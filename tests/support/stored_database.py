"""What the databases hold that the tests keep, one for each version of the store.

    cd tests && python -m support.stored_database

writes that of the present version. A database that is there stays as it is: it was made by the release whose version it
has. A new field gets its example here, with another value than its default.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from llorch.assignment_mode import Mode
from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.gguf.facts import ModelFacts, Pooling
from llorch.gguf.layers import Layer
from llorch.split_mode import SplitMode
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.calibration import Calibration
from orchestratord.core.facts.decision import Asked, Candidate, DecisionRecord, Evicted, Outcome, Term
from orchestratord.core.facts.drains import AfterDrain, Drain, DrainPolicy, Ran
from orchestratord.core.facts.known_node import KnownDevice, KnownNode, KnownPool
from orchestratord.core.facts.model import ModelRecord, ModelSpec, ModelState, Origin, SourceFacts
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.rules import Overrides, Wishes
from orchestratord.core.facts.sessions import Budget, Session
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import ChoiceEnd, RunResult, Stopped, TaskEnd, TaskError, TaskRequest, TaskState
from orchestratord.core.facts.work import Work
from orchestratord.core.learnt.estimates import Estimate
from orchestratord.core.learnt.rates import Quantity, Rate
from orchestratord.store.interface import AuditEntry, Ending, KeptTask
from orchestratord.store.migrate import version
from orchestratord.store.sqlite import FILE, open_sqlite

DATABASES = Path(__file__).parents[1] / "unit" / "orchestratord" / "store" / "databases"

FACTS = ModelFacts(
    architecture="qwen2",
    context_trained=131072,
    layers=(Layer(28, 512, 512, windowed=True, state_bytes=64, weight_bytes=90_000_000, kv_heads=4),),
    window=4096,
    vocabulary_size=152_064,
    activation_width=3584,
    weight_bytes=7_000_000_000,
    embedding_bytes=300_000_000,
    output_bytes=400_000_000,
    tied_output=True,
    pooling=Pooling.LAST,
    bidirectional=True,
)

CANDIDATE = Candidate(
    node_id="garage",
    device_ids=("GPU-1", "GPU-2"),
    where="garage/RTX 3090",
    worker_id="worker-7",
    claims_mib=(9000, 4500),
    tensor_split=(2.0, 1.0),
    evicted=(Evicted("worker-3", "writer", 61.5, 6000),),
    terms=(Term("load", 4200.5, is_guess=True),),
    filtered_by="pinned",
    filter_detail="rule 'coder only on attic'",
)

RECORDS: tuple[Record, ...] = (
    App(
        name="aider",
        key_hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        models={"gpt-4o": "coder"},
        priority="batch",
        weight=2.5,
        max_concurrent_tasks=3,
        max_tokens_per_minute=60_000,
        origin=Origin.FILE,
        created_at_ms=1_700_000_000_001,
    ),
    Assignment(
        assignment_id="coder.pin",
        model="coder",
        app="aider",
        targets=("garage/3090+3060", "attic"),
        mode=Mode.PIN,
        places=(Place("garage", ("GPU-1", "GPU-2"), "fast"), None),
        keep_loaded=True,
        replicas_min=1,
        replicas_max=2,
        fallback=True,
        origin=Origin.FILE,
        created_at_ms=1_700_000_000_002,
    ),
    Calibration(
        "file:/models/coder.gguf",
        8192,
        4,
        "q8_0",
        ("cuda RTX 3090", "cuda RTX 3060"),
        (0.67, 0.33),
        (9100, 4600),
        engine="llama_cpp",
        counts="reading, and what comes later",
    ),
    Drain(
        "garage:fast",
        "garage",
        ("GPU-1",),
        DrainPolicy.WAIT,
        AfterDrain.RELOAD,
        1_700_000_900_001,
        (Ran("coder", ("GPU-1",)),),
        is_drained=True,
    ),
    ModelRecord(
        name="coder",
        state=ModelState.RETIRED,
        spec=ModelSpec(
            name="coder",
            source="file:/models/coder.gguf",
            aliases=("code", "qwen"),
            context=8192,
            slots=2,
            cache_type=CacheType.Q8_0,
            split=SplitMode.LAYER,
            split_shares=(2.0, 1.0),
            idle_unload_s=900.5,
            vram_claim_mib=11264,
            engine="sim",
        ),
        provenance="RegisterModel call",
        at_ms=1_700_000_000_003,
    ),
    KnownNode(
        node_id="garage",
        host_id="host-1",
        address="10.0.0.7:9200",
        version="0.2",
        labels={"zone": "attic"},
        devices=(KnownDevice("GPU-1", DeviceKind.CUDA, 1, "RTX 3090", 24576, 512, "8.6", ("llama_cpp",)),),
        pools=(KnownPool("garage:fast", ("GPU-1",)),),
        offered={"notes": "dir:notes.gguf"},
        former="cellar",
    ),
    Rate(Quantity.DECODE, "coder", "RTX 3090", 4, Estimate(21.5, 3.25, 12)),
    ReleasedDevice("garage", "GPU-2", until_ms=1_700_000_900_000),
    Session("aider", "session-1", "coder", Budget(10, 20_000, 30_000), 1, 2_000, 3_000, "worker-7", 1_900),
    SourceFacts("file:/models/coder.gguf", size_mib=7000, facts=FACTS, digest="e3b0c44298fc1c149afbf4c8996fb924"),
    DecisionRecord(
        decision_id="decision-1",
        model="coder",
        outcome=Outcome.CHOSEN,
        at_ms=1_700_000_000_004,
        task_id="task-1",
        candidates=(CANDIDATE,),
        removed={"pinned": 2},
        considered=3,
        pinned=True,
        fallback_used=True,
        why="node garage",
        asked=Asked("aider", "batch", 1_700_000_000_001, 300, 40),
    ),
)
"""One of each kind, in the order in which the store reads them."""

REQUEST = TaskRequest(
    task_id="task-1",
    model="coder",
    payload=b"\x00a prompt\xff",
    content_digest="digest",
    seed=7,
    work=Work.EMBED,
    priority="batch",
    app="aider",
    session_id="session-1",
    request_id="request-1",
    correlation_id="corr-1",
    deadline_s=2.5,
    durable=True,
    prompt_tokens=12,
    max_tokens=99,
    choices=2,
    session_budget=Budget(10, 20_000, 30_000),
    wishes=Wishes(("garage",), ("attic",), ("cellar",), ("GPU-1",), fallback=True),
    overrides=Overrides(
        (Place("garage", ("GPU-1",), "fast"),), (Place("attic"),), (Place("cellar"),), ("GPU-1",), fallback=True,
        above_rules=True,
    ),
    deterministic=True, fills_limit=True,
)  # fmt: skip

PROMISE = Promise(Fingerprint("9f86d0", ("RTX 3090", "llama_cpp 0.3.36")), ("cuda RTX 3090", "cuda RTX 3060"), 8192)

RESULT = RunResult(
    choices=(ChoiceEnd(1, FinishReason.STOP_STRING, 3, "END"),),
    tokens_in=12,
    tokens_out=3,
    cached_tokens=4,
    decode_ms=60,
    receipt=b"\x1a\x01x",
    prefill_ms=20,
)

STOPPED = Stopped(FinishReason.CANCELLED, 1, 2, 9, 4, 30)
FAILURE = TaskError(Reason.WORKER_LOST, "it’s gone", retry_after_ms=7, field="generate.prompt")

OUTPUT = b'\x12\t\x1a\x01\x05"\x04some'
"""A serialized RunDelta with one entry."""

TASKS = (
    KeptTask(REQUEST, 1_700_000_000_100, promise=PROMISE),
    KeptTask(
        TaskRequest("task-2", "coder", b"", "digest", 1, durable=True),
        1_700_000_000_200,
        Ending(TaskState.COMPLETED, TaskEnd(RESULT, 4, 9), OUTPUT, 1_700_000_000_300),
    ),
    KeptTask(
        TaskRequest("task-3", "coder", b"", "digest", 1, durable=True),
        1_700_000_000_201,
        Ending(
            TaskState.FAILED,
            FAILURE,
            b"",
            1_700_000_000_301,
        ),
    ),
    KeptTask(
        TaskRequest("task-4", "coder", b"", "digest", 1, durable=True),
        1_700_000_000_202,
        Ending(TaskState.CANCELLED, STOPPED, OUTPUT, 1_700_000_000_302, 7),
    ),
)

AUDIT = (
    AuditEntry(1_700_000_000_400, "localhost", "corr-1", "model.deleted", '{"model": "sim"}', "done", seq=1),
    AuditEntry(1_700_000_000_401, "token:9f86d0", "corr-2", "app.deleted", '{"name": "x"}', "APP_NOT_FOUND", seq=2),
)


def path_of(name: str) -> Path:
    return DATABASES / f"{name}.sql"


async def fill(folder: Path) -> None:
    """Makes a database there that holds all of the above."""
    store = open_sqlite(folder)
    try:
        await store.begin_incarnation()
        await store.save_records([RecordChange(None, record) for record in RECORDS])
        for kept in TASKS:
            await store.save_task(kept.request, kept.accepted_at_ms)
            if kept.promise is not None:
                await store.save_promise(kept.request.task_id, kept.promise)
            if kept.ending is not None:
                await store.save_ending(kept.request.task_id, kept.ending)
        for entry in AUDIT:
            await store.append_audit(entry)
    finally:
        await store.close()


def lines_of(folder: Path) -> Sequence[str]:
    """The database there as SQL, in lines."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        return list(connection.iterdump())


def _main() -> None:
    path = path_of(version())
    with TemporaryDirectory() as folder:
        asyncio.run(fill(Path(folder)))
        with path.open("x") as written:
            written.write("\n".join(lines_of(Path(folder))) + "\n")


if __name__ == "__main__":
    _main()
