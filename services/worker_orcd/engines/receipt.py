"""The receipt of a deterministic run: what its bytes depend on, and their digest. Pure."""

from collections.abc import Iterable
from hashlib import sha256

from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import LogEntry, Receipt

_ID_BYTES = 4


class ReceiptWriter:
    """Counts the token ids of all attempts, those in the run's prefix as well."""

    def __init__(self, run: EngineRun, fingerprint: Fingerprint) -> None:
        self._fingerprint = fingerprint
        self._seed = run.spec.seed
        self._ids = [bytearray() for _ in range(run.spec.choices)]
        self.add(run.prefix)

    def add(self, entries: Iterable[LogEntry]) -> None:
        for entry in entries:
            for token_id in entry.token_ids:
                self._ids[entry.choice] += token_id.to_bytes(_ID_BYTES, "little")

    def receipt(self) -> Receipt:
        """For what was added until now."""
        return Receipt(self._fingerprint, self._seed, sha256(b"".join(self._ids)).hexdigest())


def receipt_writer(run: EngineRun, fingerprint: Fingerprint) -> ReceiptWriter | None:
    """None for a run that is not deterministic: nothing is promised about its bytes."""
    return ReceiptWriter(run, fingerprint) if run.spec.deterministic else None
