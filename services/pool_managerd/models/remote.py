"""Models that have to come from elsewhere: which files they are, and bringing them into the cache."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from llorch.clock import Clock
from llorch.gguf.split_name import split_name
from llorch.logs import get_logger
from llorch.model_reference import HubReference, RemoteReference, UrlReference
from pool_managerd.models.cache import ArrivedFile, ModelCache, key_of
from pool_managerd.models.download.download import FIRST_WAIT_S, Download, RemoteFile, Surroundings
from pool_managerd.models.download.network import Network
from pool_managerd.models.download.part_file import PartFile
from pool_managerd.models.download.policy import DownloadPolicy
from pool_managerd.models.download.progress import Progress, SpeedMeter
from pool_managerd.models.hub import Hub
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.models.on_disk import on_disk

_log = get_logger(__name__)

_AT_ONCE = 4
_TELL_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class RemoteRules:
    """`in_use` are the references whose files are open. `where_it_fits` tells people which devices could hold so many
    bytes.
    """

    policy: DownloadPolicy
    network: Network
    in_use: Callable[[], Collection[str]]
    where_it_fits: Callable[[int], str]
    first_wait_s: float = FIRST_WAIT_S


class RemoteModels:
    """The only owner of the cache. Several models may come at the same time and share the bandwidth."""

    def __init__(self, cache: ModelCache, rules: RemoteRules, clock: Clock) -> None:
        self._cache = cache
        self._rules = rules
        self._clock = clock
        self._hub = Hub(rules.policy, rules.network, rules.where_it_fits)
        self._disk = asyncio.Lock()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._coming: dict[Path, Download] = {}
        self._evicted: Callable[[Collection[str]], None] = lambda _: None

    async def open(self, evicted: Callable[[Collection[str]], None]) -> list[LocatedModel]:
        """What is in the cache. From now on `evicted` is called with the references that were removed."""
        self._evicted = evicted
        async with self._disk:
            return await on_disk(self._cache.open)

    async def find(self, reference: str) -> LocatedModel:
        """Raises `NotFound` where it was not brought yet."""
        async with self._disk:
            return await on_disk(self._cache.find, reference)

    async def path_of(self, reference: str) -> Path:
        """As `find`, and counts as no use."""
        async with self._disk:
            return await on_disk(self._cache.path_of, reference)

    async def remove(self, reference: str) -> None:
        async with self._disk:
            await on_disk(self._cache.remove, reference)

    async def bring(self, reference: RemoteReference, tell: Callable[[Progress], None]) -> LocatedModel:
        """The model in the cache. Raises whatever keeps it from getting there."""
        async with self._turns:
            files = await self._files_of(reference)
            teller = _Teller(files, tell, self._clock)
            arrived: list[ArrivedFile] = []
            async with AsyncExitStack() as open_parts:
                for number, file in enumerate(files):
                    arrived.append(await self._fetch(reference, number, file, teller, open_parts))
                async with self._disk:
                    model = await on_disk(self._cache.add, reference.text, arrived)
        _log.info("model_staged", source=reference.text, size_mib=model.size_bytes // 2**20)
        return model

    async def _files_of(self, reference: RemoteReference) -> list[RemoteFile]:
        match reference:
            case HubReference():
                return await self._hub.files(reference)
            case UrlReference():
                return _files_of_url(reference)

    async def _fetch(
        self, reference: RemoteReference, number: int, file: RemoteFile, teller: "_Teller", open_parts: AsyncExitStack
    ) -> ArrivedFile:
        if file.size is not None and self._cache.has_file(file.sha256):
            teller.file_is_here(number, file.size)
            return ArrivedFile(file.name, file.sha256, file.size, None)
        part = PartFile(self._cache.parts, key_of(f"{reference.text} {file.name}"))
        await on_disk(part.open)
        open_parts.push_async_callback(on_disk, part.close)
        around = Surroundings(
            self._rules.policy,
            self._rules.network,
            self._clock,
            make_room=lambda needed: self._make_room(part.path, needed),
            first_wait_s=self._rules.first_wait_s,
        )
        download = Download(file, part, around, lambda done, total: teller.arrived(number, done, total))
        self._coming[part.path] = download
        try:
            await download.run()
        finally:
            del self._coming[part.path]
        return ArrivedFile(file.name, part.sha256, part.length, part)

    async def _make_room(self, path: Path, needed: int) -> None:
        """For the download into `path`, beside what is still to come of the others."""
        async with self._disk:
            promised = sum(download.missing for other, download in self._coming.items() if other != path)
            parts = {beside for other in self._coming for beside in (other, other.with_suffix(".json"))}
            gone = await on_disk(self._cache.make_room, needed + promised, self._rules.in_use(), parts)
        self._evicted(gone)


class _Teller:
    """Adds the files of a model up to one progress."""

    def __init__(self, files: list[RemoteFile], tell: Callable[[Progress], None], clock: Clock) -> None:
        self._done = [0] * len(files)
        self._totals: list[int | None] = [file.size for file in files]
        self._lay_here: list[int | None] = [None] * len(files)
        self._tell = tell
        self._clock = clock
        self._meter = SpeedMeter()
        self._told_at_s = 0.0

    def file_is_here(self, number: int, size: int) -> None:
        self._lay_here[number] = size
        self.arrived(number, size, size)

    def arrived(self, number: int, done: int, total: int | None) -> None:
        """Called for every piece; told a few times a second, and when a file is whole."""
        if self._lay_here[number] is None:
            self._lay_here[number] = done
        self._done[number] = done
        if total is not None:
            self._totals[number] = total
        now_s = self._clock.monotonic()
        if done == total or now_s >= self._told_at_s + _TELL_EVERY_S:
            self._told_at_s = now_s
            self._tell(self._sum(now_s))

    def _sum(self, now_s: float) -> Progress:
        done, lay_here = sum(self._done), sum(size or 0 for size in self._lay_here)
        known = [size for size in self._totals if size is not None]
        total = sum(known) if len(known) == len(self._totals) else None
        return Progress(done, total, max(0.0, self._meter.note(now_s, done - lay_here)))


def _files_of_url(reference: UrlReference) -> list[RemoteFile]:
    """All files of a split model lie beside the first one, and are named by it."""
    split = split_name(reference.file)
    if split is None or split.count == 1:
        return [RemoteFile(reference.url, reference.file, sha256=reference.sha256)]
    head, _, tail = reference.url.partition("?")
    folder = head.rpartition("/")[0]
    query = f"?{tail}" if tail else ""
    return [RemoteFile(f"{folder}/{name}{query}", name) for name in split.all()]
