"""What a deterministic run shows for itself."""

from hashlib import sha256

from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.receipt import ReceiptWriter, receipt_writer
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import RunSpec

FINGERPRINT = Fingerprint(engine_version="e 1", threads=2)
SPEC = RunSpec(prompt="x", seed=2**64 - 1, choices=2, deterministic=True)


def digest(*token_ids: int) -> str:
    return sha256(b"".join(token_id.to_bytes(4, "little") for token_id in token_ids)).hexdigest()


def test_it_covers_the_choices_one_after_the_other() -> None:
    writer = ReceiptWriter(EngineRun("a", SPEC), FINGERPRINT)
    writer.add([LogEntry(0, (1, 70_000), "a"), LogEntry(1, (5,), "b")])
    writer.add([LogEntry(0, (2,), "c")])
    receipt = writer.receipt()
    assert receipt.token_digest == digest(1, 70_000, 2, 5)
    assert (receipt.seed, receipt.fingerprint) == (2**64 - 1, FINGERPRINT)


def test_it_covers_what_earlier_attempts_said() -> None:
    first, rest = LogEntry(0, (1, 2), "a"), LogEntry(0, (3,), "b")
    resumed = ReceiptWriter(EngineRun("b", SPEC, (first,)), FINGERPRINT)
    resumed.add([rest])
    assert resumed.receipt().token_digest == digest(1, 2, 3)


def test_nothing_said_has_a_receipt_too() -> None:
    assert ReceiptWriter(EngineRun("a", SPEC), FINGERPRINT).receipt().token_digest == digest()


def test_a_run_that_is_not_deterministic_has_none() -> None:
    assert receipt_writer(EngineRun("a", RunSpec(prompt="x")), FINGERPRINT) is None
