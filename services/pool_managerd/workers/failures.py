"""How often the same worker failed in a row, for the orchestrator, which decides when to start it again. Pure."""

from collections import OrderedDict

from llorch.worker_spec import WorkerSpec

WAS_FINE_AFTER_S = 300.0
_KEEP = 1000

Key = tuple[str, tuple[str, ...]]


class FailureCount:
    """Workers are the same if they have the same file on the same devices."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Key, int] = OrderedDict()

    def failed(self, spec: WorkerSpec, ready_s: float) -> int:
        """Failures in a row, this one included, of a worker that had been ready for `ready_s`."""
        key = (spec.source, spec.device_ids)
        before = 0 if ready_s >= WAS_FINE_AFTER_S else self._counts.get(key, 0)
        self._counts[key] = before + 1
        self._counts.move_to_end(key)
        while len(self._counts) > _KEEP:
            self._counts.popitem(last=False)
        return before + 1
