"""Scenarios that wait for most of their time, for leases, cuts and ends of streams: at once, each in its own system."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

Scenario = Callable[[Path], Awaitable[None]]


async def run_all(folder: Path, scenarios: Mapping[str, Scenario]) -> None:
    """By name, which is also that of its folder. A failure says in which it was, and ends the others."""
    async with asyncio.TaskGroup() as group:
        for name, scenario in scenarios.items():
            group.create_task(_run(folder / name.replace(" ", "-"), name, scenario), name=name)


async def _run(folder: Path, name: str, scenario: Scenario) -> None:
    folder.mkdir()  # noqa: ASYNC240  # a local folder, in a test
    try:
        await scenario(folder)
    except Exception as error:
        error.add_note(f"where {name}")
        raise
