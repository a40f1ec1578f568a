"""Which beginnings of prompts the workers should have in their KV caches: as the runs that were sent there left them.

A worker keeps the conversations that were used last, in its slots and in the memory of its host, and tells how many.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

BLOCK_BYTES = 512
"""Of a prompt's text, about 128 tokens: as much as a difference between two prompts may cost on top."""

MOST_BLOCKS = 1024
"""Of one prompt. What comes after them is taken to be new."""

MOST_BYTES = 32 * 2**20
"""Of what is kept of all workers together: the beginnings of 100 MiB of text."""

BYTES_OF_BLOCK = 160
"""At most, measured: its entry among those of a worker, which grow by doubling, and its number."""

_BYTES_OF_PROMPT = 512


@dataclass(frozen=True, slots=True)
class PromptHead:
    """`blocks[i]` stands for the first (i + 1) × BLOCK_BYTES bytes of a text of `size` bytes, MOST_BLOCKS at most."""

    blocks: Sequence[int] = ()
    size: int = 0


NO_HEAD = PromptHead()


@dataclass(slots=True)
class _WorkerCache:
    """Of one worker. `prompts` are by their last block, in the order of their last use; `blocks` says in how many of
    them a block is.
    """

    prompts: OrderedDict[int, Sequence[int]] = field(default_factory=OrderedDict)
    blocks: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Warmth:
    """Bounded in bytes: of all workers, what was used longest ago goes first."""

    bytes: int = 0
    _heads: dict[str, PromptHead] = field(default_factory=dict)
    """Of tasks that have not ended."""
    _workers: dict[str, _WorkerCache] = field(default_factory=dict)
    _by_use: OrderedDict[tuple[str, int], None] = field(default_factory=OrderedDict)
    """A worker, and the last block of a prompt that it has."""

    def task_came(self, task_id: str, head: PromptHead) -> None:
        if head.blocks:
            self._heads[task_id] = head

    def task_went(self, task_id: str) -> None:
        self._heads.pop(task_id, None)

    def share(self, task_id: str, worker_id: str) -> float:
        """Of the task's prompt, from 0 to 1, that the worker should have."""
        head, kept = self._heads.get(task_id), self._workers.get(worker_id)
        if head is None or kept is None or head.blocks[0] not in kept.blocks:
            return 0.0
        low, high = 1, len(head.blocks)  # a block that is there has all before it there
        while low < high:
            middle = (low + high + 1) // 2
            if head.blocks[middle - 1] in kept.blocks:
                low = middle
            else:
                high = middle - 1
        return low * BLOCK_BYTES / head.size

    def share_in_one(self, task_id: str, worker_id: str) -> float:
        """Of the prompt, by a whole prompt that the worker has and this one goes on from."""
        head, kept = self._heads.get(task_id), self._workers.get(worker_id)
        if head is None or kept is None:
            return 0.0
        found = next((at for at in range(len(head.blocks), 0, -1) if head.blocks[at - 1] in kept.prompts), 0)
        return found * BLOCK_BYTES / head.size

    def prompts_of(self, worker_id: str) -> int:
        kept = self._workers.get(worker_id)
        return len(kept.prompts) if kept else 0

    def sent(self, task_id: str, worker_id: str) -> int | None:
        """The task runs there. What names its prompt among those of the worker; None where it is too short for that."""
        head = self._heads.get(task_id)
        if head is None:
            return None
        kept = self._workers.setdefault(worker_id, _WorkerCache())
        last = head.blocks[-1]
        if last in kept.prompts:
            kept.prompts.move_to_end(last)
            self._by_use.move_to_end((worker_id, last))
            return last
        kept.prompts[last] = head.blocks
        for block in head.blocks:
            kept.blocks[block] = kept.blocks.get(block, 0) + 1
        self._by_use[worker_id, last] = None
        self.bytes += _bytes_of(head.blocks)
        while self.bytes > MOST_BYTES:
            self._drop(*next(iter(self._by_use)))
        return last

    def evaluated(self, worker_id: str, last: int | None) -> None:
        """The worker has the prompt. One that it goes on from is none of its own any more: its place was taken."""
        kept = self._workers.get(worker_id)
        if kept is None or last is None or last not in kept.prompts:
            return
        for block in kept.prompts[last][:-1]:
            if block in kept.prompts:
                self._drop(worker_id, block)

    def not_evaluated(self, worker_id: str, last: int | None) -> None:
        """The worker may not have the prompt; what it had before, it still has."""
        kept = self._workers.get(worker_id)
        if kept is not None and last is not None and last in kept.prompts:
            self._drop(worker_id, last)

    def keeps(self, worker_id: str, prompts: int) -> None:
        """So many conversations at most are there."""
        kept = self._workers.get(worker_id)
        while kept is not None and len(kept.prompts) > prompts:
            self._drop(worker_id, next(iter(kept.prompts)))

    def worker_gone(self, worker_id: str) -> None:
        self.keeps(worker_id, 0)
        self._workers.pop(worker_id, None)

    def _drop(self, worker_id: str, last: int) -> None:
        kept = self._workers[worker_id]
        blocks = kept.prompts.pop(last)
        del self._by_use[worker_id, last]
        self.bytes -= _bytes_of(blocks)
        for block in blocks:
            if kept.blocks[block] == 1:
                del kept.blocks[block]
            else:
                kept.blocks[block] -= 1


def _bytes_of(blocks: Sequence[int]) -> int:
    return _BYTES_OF_PROMPT + BYTES_OF_BLOCK * len(blocks)
