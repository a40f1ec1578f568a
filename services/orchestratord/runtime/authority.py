"""What this orchestrator commands with: its cluster and its epoch, which rises where a node has seen a later one.

The epoch falls behind when an older copy of the database is put back: the nodes have seen the epochs of starts that
the copy knows nothing of. Whether this orchestrator may rise is for its store to say, in which an orchestrator that
took its place has left a later epoch.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from llorch.errors import FailedPrecondition, Reason, invalid_field
from llorch.logs import get_logger
from orchestratord.store.interface import Incarnation, Store

MOST_COMMANDED = 4096
"""Hosts that are known to have been commanded by this orchestrator, the last ones. One that was forgotten, and comes
back, makes the epoch rise once more than it had to: the safe way.
"""

HIGHEST_EPOCH = 2**62
"""A node that names a higher one than this, and than ours, is mistaken: no orchestrator has started that often."""

_log = get_logger("orchestratord")


class Authority:
    def __init__(self, store: Store, incarnation: Incarnation) -> None:
        self._store = store
        self._incarnation = incarnation
        self._rising = asyncio.Lock()
        self._links: Counter[str] = Counter()
        self._commanded: dict[str, None] = {}
        """By the host's id; nodes that tell none by theirs. Those that came last are last."""

    @property
    def cluster_id(self) -> str:
        return self._incarnation.cluster_id

    @property
    def control_epoch(self) -> int:
        return self._incarnation.control_epoch

    async def take_in(self, node_id: str, cluster_id: str, control_epoch: int, host_id: str = "") -> None:
        """Before the node is registered. Raises FailedPrecondition / STALE_EPOCH where this orchestrator may not rise.

        A host that this one has not commanded yet, whatever it was called then, and that has seen the very same epoch,
        has it from an orchestrator on another copy of the database. It counts that one's commands, so this one needs an
        epoch of its own as well. A node may tell its host for the first time, once its pool manager was upgraded.
        """
        if cluster_id == self.cluster_id:
            if control_epoch > max(HIGHEST_EPOCH, self.control_epoch):
                raise invalid_field(
                    "register.control_epoch",
                    f"is at most {HIGHEST_EPOCH}; stop the pool manager, delete control.json in its data directory, "
                    "and start it again",
                )
            knows_this_one = host_id in self._commanded or node_id in self._commanded
            await self._rise_above(control_epoch - 1 if knows_this_one else control_epoch, f"node '{node_id}'")
        elif cluster_id:
            _log.info("node_comes_from_another_cluster", node_id=node_id, cluster_id=cluster_id)
        self._commanded.pop(host_id or node_id, None)
        self._commanded[host_id or node_id] = None
        while len(self._commanded) > MOST_COMMANDED:
            del self._commanded[next(iter(self._commanded))]

    @contextmanager
    def linked(self, node_id: str) -> Iterator[None]:
        """For as long as the node is linked to this orchestrator, which makes its word count."""
        self._links[node_id] += 1
        try:
            yield
        finally:
            self._links[node_id] -= 1
            self._links += Counter()  # without those that are 0

    async def overcome(self, node_id: str, sent_epoch: int, refusal: FailedPrecondition) -> bool:
        """Whether a command with `sent_epoch` that the node, or a worker there, has refused can be sent again.

        An orchestrator that the node has left does not rise: two on two copies of one database would outbid each other.
        """
        if refusal.reason is not Reason.STALE_EPOCH or refusal.metadata.get("cluster_id") != self.cluster_id:
            return False
        told = refusal.metadata.get("control_epoch", "")
        seen = int(told) if told.isascii() and told.isdecimal() else 0
        if self.control_epoch < seen <= HIGHEST_EPOCH and node_id in self._links:
            await self._rise_above(seen, f"a command to node '{node_id}'")
        return sent_epoch < seen <= self.control_epoch

    async def _rise_above(self, epoch: int, because_of: str) -> None:
        async with self._rising:
            before = self.control_epoch
            if epoch < before:
                return
            try:
                self._incarnation = await self._store.raise_epoch(epoch)
            except FailedPrecondition as error:
                _log.error("superseded", seen_epoch=epoch, own_epoch=before, because_of=because_of, why=error.message)
                raise
            _log.warning(
                "epoch_raised",
                before=before,
                now=self.control_epoch,
                because_of=because_of,
                why="it has seen this epoch or a later one from another start of this cluster's orchestrator; an older "
                "copy of the database seems to be in use",
            )
