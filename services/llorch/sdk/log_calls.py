"""Calls about what workers write."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from llama_orch.v2 import fleet_service_pb2
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled


class LogCalls(Caller):
    async def worker_log(
        self, worker_id: str, *, tail_lines: int = 100, follow: bool = False
    ) -> AsyncGenerator[str, None]:
        """The last lines of a worker's log (1 to 10000), then with `follow` every line as it is written, until the
        worker has ended. Also of workers that have ended, as long as their machine keeps the log.
        """
        request = filled(
            fleet_service_pb2.StreamWorkerLogRequest, worker_id=worker_id, tail_lines=tail_lines, follow=follow
        )
        async with aclosing(self._read(self._stubs.fleet.StreamWorkerLog, request)) as answers:
            async for answer in answers:
                for line in answer.lines:
                    yield line
