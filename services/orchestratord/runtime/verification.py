"""The files of a model are read again on all nodes that hold it, at the same time."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llorch.errors import LlorchError
from orchestratord.runtime.node_commands import NodeCommands


@dataclass(frozen=True, slots=True)
class Found:
    """What a node found: the digest, or why there is none."""

    node_id: str
    digest: str = ""
    failure: str = ""


async def read_on_nodes(nodes: Mapping[str, NodeCommands], source: str) -> list[Found]:
    """By node; if one fails, the others go on."""

    async def read(node_id: str, commands: NodeCommands) -> Found:
        try:
            return Found(node_id, digest=await commands.verify_model(source))
        except LlorchError as error:
            return Found(node_id, failure=error.message)

    return list(await asyncio.gather(*(read(node_id, commands) for node_id, commands in sorted(nodes.items()))))


def compared(found: list[Found], known: str) -> list[Found]:
    """With a failure where the file has another digest than the one that counts."""
    message = f"the file is another one than that of digest {known[:12]}…; bring the right file there"
    return [replace(one, failure=message) if one.digest and one.digest != known else one for one in found]


def found_by_most(found: list[Found]) -> str:
    """Of equally many, the first in the order of digests, so that equal findings give equal answers; empty for none."""
    counts = Counter(one.digest for one in found if one.digest)
    return min(counts, key=lambda digest: (-counts[digest], digest), default="")
