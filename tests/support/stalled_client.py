"""A client in a process of its own, to be stopped while it reads: `python -m support.stalled_client ADDRESS TASK…`."""

import asyncio
import sys

from llama_orch.v2 import task_service_pb2
from llama_orch.v2.task_service_pb2_grpc import TaskServiceStub
from llorch.rpc.client import open_channel, open_stream


async def main(address: str, task_ids: list[str]) -> None:
    """Reads each task to its end, and says once that all are being read."""
    began = 0

    async def read(task_id: str) -> None:
        nonlocal began
        request = task_service_pb2.StreamTaskRequest(task_id=task_id)
        async with open_stream(TaskServiceStub(channel).StreamTask, request) as answers:
            async for answer in answers:
                if answer.event.HasField("started"):
                    began += 1
                    if began == len(task_ids):
                        sys.stdout.write("reading\n")
                        sys.stdout.flush()

    async with open_channel(address) as channel:
        await asyncio.gather(*map(read, task_ids))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
