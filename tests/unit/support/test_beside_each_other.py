"""Scenarios beside each other: all run at once, and a failure says which it was and ends the others."""

import asyncio
from pathlib import Path

import pytest

from support import beside_each_other


async def test_all_run_at_once_each_in_a_folder_of_its_own(tmp_path: Path) -> None:
    all_begun, folders = asyncio.Barrier(2), set[str]()

    async def scenario(folder: Path) -> None:
        folders.add(folder.name)
        await all_begun.wait()

    await beside_each_other.run_all(tmp_path, {"it froze": scenario, "it crashed": scenario})
    assert folders == {"it-froze", "it-crashed"}


async def test_a_failure_names_its_scenario_and_ends_the_others(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def waits(_: Path) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails(_: Path) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as failed:
        await beside_each_other.run_all(tmp_path, {"it waits": waits, "it fails": fails})
    (error,) = failed.value.exceptions
    assert isinstance(error, ZeroDivisionError)
    assert error.__notes__ == ["where it fails"]
    assert ended.is_set()
