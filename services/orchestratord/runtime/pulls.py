"""One pull on several nodes at once; if one node fails, the others go on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from llama_orch.v2.pool_manager_service_pb2 import StageProgress
from llorch.errors import LlorchError
from orchestratord.runtime.node_commands import NodeCommands

Tell = Callable[[str, StageProgress], Awaitable[None]]


async def pull(nodes: Mapping[str, NodeCommands], source: str, tell: Tell) -> None:
    """Returns when the file is on all nodes. `tell` is called for one node at a time.

    Raises the first failure, once the other nodes are done.
    """
    turn = asyncio.Lock()

    async def tell_in_turn(node_id: str, progress: StageProgress) -> None:
        async with turn:
            await tell(node_id, progress)

    async def pull_on(node_id: str, commands: NodeCommands) -> LlorchError | None:
        try:
            await commands.pull(source, lambda progress: tell_in_turn(node_id, progress))
        except LlorchError as error:
            if f"'{node_id}'" not in error.message and "\n" not in error.message:  # no list of what there is
                error.message = f"{error.message} (on {node_id})"
            return error
        return None

    failures = await asyncio.gather(*(pull_on(node_id, commands) for node_id, commands in nodes.items()))
    for failure in failures:
        if failure is not None:
            raise failure
