"""One file from elsewhere into a part file, with as many connections as it takes."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from llorch.clock import Clock
from llorch.errors import FailedPrecondition, Reason, ResourceExhausted
from llorch.logs import get_logger
from pool_managerd.models.download.answer import Body, Interrupted, RangeRefused, read_answer
from pool_managerd.models.download.get import Answer, Wanted, get
from pool_managerd.models.download.network import Network
from pool_managerd.models.download.part_file import PartFile, PartState
from pool_managerd.models.download.policy import DownloadPolicy, refused
from pool_managerd.models.download.progress import SlownessWatch
from pool_managerd.models.gguf import ENOUGH_TO_TELL, check_head
from pool_managerd.models.on_disk import on_disk

_log = get_logger(__name__)

_MIB = 2**20
WRITE_BYTES = 2 * _MIB
_ROOM_STEP_BYTES = 256 * _MIB
_FAILURES_IN_A_ROW = 5
FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """`size` and `sha256` where they are known before: the file then has to have them."""

    url: str
    name: str
    size: int | None = None
    sha256: str = ""
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a download needs. `make_room(n)` returns when the disk may take `n` more bytes, or raises. `first_wait_s`
    lies between the first failure and the next attempt.
    """

    policy: DownloadPolicy
    network: Network
    clock: Clock
    make_room: Callable[[int], Awaitable[None]]
    first_wait_s: float = FIRST_WAIT_S


class Download:
    """Runs once. `arrived(done, total)` is called for every piece that is on its way to the disk."""

    def __init__(
        self,
        file: RemoteFile,
        part: PartFile,
        around: Surroundings,
        arrived: Callable[[int, int | None], None],
    ) -> None:
        self._file = file
        self._part = part
        self._around = around
        self._policy = around.policy
        self._arrived = arrived
        self._room = 0
        self._is_pieced = False  # of more than one answer

    @property
    def missing(self) -> int:
        """Bytes that are still to come, as far as that is known."""
        return max(0, (self._part.state.total or 0) - self._part.length)

    async def run(self) -> None:
        """Returns when the part file is whole and is what it should be.

        Raises an error that a retry can't repair, after deleting what came; or the last error of the network, and then
        what came is kept if a later download can resume it.
        """
        try:
            await self._within_time()
        except (Interrupted, ResourceExhausted):
            if not self._can_be_resumed():
                await on_disk(self._part.drop)
            raise
        except Exception:
            await on_disk(self._part.drop)
            raise

    async def _within_time(self) -> None:
        try:
            async with asyncio.timeout(self._policy.max_duration_s):
                await asyncio.to_thread(self._part.resume, self._file.url)
                self._is_pieced = self._part.length > 0
                self._arrived(self._part.length, self._part.state.total)
                await self._until_whole()
                if self._is_pieced and not self._has_right_digest():
                    await self._restart()
                    await self._until_whole()
                self._check_digest()
        except TimeoutError:
            hours = self._policy.max_duration_s / 3600
            raise Interrupted(f"{self._file.name} was not here within {hours:g} h") from None

    async def _until_whole(self) -> None:
        """A connection that delivered bytes resets the count of failures in a row."""
        failures, certain_progress = 0, self._part.length
        while not self._is_whole():
            try:
                await self._attempt()
            except Interrupted as error:
                if self._part.length >= certain_progress + _MIB:
                    failures, certain_progress = 0, self._part.length
                failures += 1
                if failures >= _FAILURES_IN_A_ROW:
                    raise
                _log.info("download_interrupted", file=self._file.name, done=self._part.length, why=error.message)
                if isinstance(error, RangeRefused) or not self._can_be_resumed():
                    await self._restart()
                    certain_progress = 0
                await asyncio.sleep(self._wait_s(failures))

    async def _attempt(self) -> None:
        wanted = Wanted(self._file.url, self._range(), self._file.authorization)
        async with get(wanted, self._policy, self._around.network) as answer:
            body = read_answer(answer.location.host, answer.status, answer.headers, self._part.length)
            await self._begin(body)
            await self._take_in(answer)
        if self._part.state.total is not None and not self._is_whole():
            raise Interrupted(f"the connection for {self._file.name} ended before the file did")
        if self._part.state.total is None:
            self._part.state = replace(self._part.state, total=self._part.length)

    def _range(self) -> dict[str, str]:
        """With If-Range the server sends a file that has changed meanwhile as a whole, not the end of another file."""
        if not self._part.length:
            return {}
        wanted = {"Range": f"bytes={self._part.length}-"}
        if self._part.state.validator:
            wanted["If-Range"] = self._part.state.validator
        return wanted

    async def _begin(self, body: Body) -> None:
        known = self._part.state
        changed = bool(body.validator and known.validator and body.validator != known.validator)
        if body.offset and (changed or (known.total is not None and body.total != known.total)):
            raise RangeRefused(f"{self._file.name} was changed while it came")
        total = self._file.size if body.total is None else body.total
        state = PartState(self._file.url, body.validator or known.validator, total, known.certain)
        if body.offset:
            self._part.state, self._is_pieced = state, True
        else:
            await self._restart(replace(state, validator=body.validator, certain=0))
        self._check_size()
        if total is not None:
            await self._around.make_room(total - self._part.length)
            self._room = total

    async def _restart(self, state: PartState | None = None) -> None:
        await on_disk(self._part.restart, state or PartState(self._file.url))
        self._room, self._is_pieced = 0, False

    def _check_size(self) -> None:
        total = self._part.state.total
        if total is not None and (total != (self._file.size or total) or self._part.length > total):
            raise FailedPrecondition(
                Reason.MODEL_FILE_INVALID,
                f"{self._file.name} is not as long as was announced: {self._file.size or total} bytes",
            )
        if (total or self._part.length) > self._policy.max_file_bytes:
            raise refused(
                f"{self._file.name} is larger than `download_max_mib` of this node allows "
                f"({self._policy.max_file_bytes // _MIB} MiB)"
            )

    async def _take_in(self, answer: Answer) -> None:
        """Pieces are gathered, so that each trip to the disk's thread is worth it."""
        watch = SlownessWatch(
            self._policy.slow_window_s, self._policy.slowest_bytes_per_s, self._around.clock.monotonic()
        )
        gathered: list[bytes] = []
        size = 0
        try:
            async for piece in answer.body:
                if watch.is_too_slow(self._around.clock.monotonic(), len(piece)):
                    raise refused(f"{answer.location.host} sends {self._file.name} too slowly")
                gathered.append(piece)
                size += len(piece)
                self._arrived(self._part.length + size, self._part.state.total)
                if size >= WRITE_BYTES:
                    pieces, gathered, size = gathered, [], 0
                    await self._write(pieces)
        finally:
            # The bytes before the break count as well; the error of the connection is raised afterwards.
            if gathered:
                await self._write(gathered)
        self._check_head(is_all=True)

    async def _write(self, pieces: list[bytes]) -> None:
        after = self._part.length + sum(map(len, pieces))
        if after > self._room:
            await self._around.make_room(after + _ROOM_STEP_BYTES - self._room)
            self._room = after + _ROOM_STEP_BYTES
        await on_disk(self._part.append, pieces)
        self._check_size()
        self._check_head(is_all=False)

    def _check_head(self, *, is_all: bool) -> None:
        """A web page instead of a model is noticed at its beginning, not after 40 GB."""
        if len(self._part.head) >= ENOUGH_TO_TELL or (is_all and self._is_whole()):
            check_head(self._part.head, self._file.name)

    def _check_digest(self) -> None:
        if not self._has_right_digest():
            raise FailedPrecondition(
                Reason.MODEL_FILE_INVALID,
                f"{self._file.name} is not the file that was announced: its SHA-256 is {self._part.sha256}, "
                f"and should be {self._file.sha256}",
            )

    def _has_right_digest(self) -> bool:
        return self._file.sha256 in ("", self._part.sha256)

    def _is_whole(self) -> bool:
        return self._part.state.total is not None and self._part.length == self._part.state.total

    def _can_be_resumed(self) -> bool:
        """Whether the server (If-Range) or the digest would reveal that the rest came from another file."""
        return bool(self._part.state.validator or self._file.sha256)

    def _wait_s(self, failures: int) -> float:
        longest = min(self._around.first_wait_s * 2 ** (failures - 1), _LONGEST_WAIT_S)
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, keeps no secret
