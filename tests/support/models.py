"""Model files for tests that only move them around, and a place on disk that downloads go to."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from pool_managerd.models.cache import ModelCache
from pool_managerd.models.download.network import Network
from pool_managerd.models.download.policy import DownloadPolicy
from pool_managerd.models.remote import RemoteModels, RemoteRules
from pool_managerd.models.shelf import ModelShelf
from support.gguf_writer import MetadataValue, header_bytes


def model_bytes(size: int = 300_000, seed: int = 1, *, split: tuple[int, int] = (0, 1)) -> bytes:
    """A model whose weights are noise: about `size` bytes. `split`: which file of how many."""
    metadata: dict[str, MetadataValue] = {
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "llama.embedding_length": 64,
        "llama.block_count": 1,
        "llama.attention.head_count": 1,
    }
    number, count = split
    if count > 1:
        metadata |= {"split.no": number, "split.count": count, "split.tensors.count": count}
    weights = np.zeros(max(32, size // 4 // 32 * 32), np.float32)
    content = header_bytes(metadata, {f"noise.{number}.weight": weights})
    return content + random.Random(seed).randbytes(weights.nbytes)  # noqa: S311 - it has to be repeatable


@dataclass
class Downloads:
    """A shelf that downloads into `folder` over `network`."""

    folder: Path
    network: Network
    tasks: TaskSupervisor
    policy: DownloadPolicy = field(default_factory=DownloadPolicy)
    budget: int | None = None
    in_use: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.cache = ModelCache(self.folder, self.budget)
        rules = RemoteRules(self.policy, self.network, lambda: self.in_use, lambda _: "fits RTX 3090", first_wait_s=0.0)
        self.remote = RemoteModels(self.cache, rules, SystemClock())
        self.shelf = ModelShelf(self.remote, tasks=self.tasks)

    async def open(self) -> "Downloads":
        await self.shelf.open()
        return self

    @property
    def files(self) -> list[Path]:
        """Everything that is there, whole or in part."""
        return sorted(path for path in self.folder.rglob("*") if not path.is_dir())
