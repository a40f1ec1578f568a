"""Server reflection, so that `buf curl` and `grpcurl` need no proto files."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from grpc_reflection.v1alpha import reflection

SERVICE: str = reflection.SERVICE_NAME


class ReflectionServicer:
    """The library's servicer behind a coroutine: it is a generator, and grpc.aio does not close those."""

    def __init__(self, services: Sequence[str]) -> None:
        make: Any = reflection.aio.ReflectionServicer
        self._library = make(services)

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> None:  # noqa: N802  # its name
        async with aclosing(self._library.ServerReflectionInfo(requests, context)) as answers:
            async for answer in answers:
                await context.write(answer)
