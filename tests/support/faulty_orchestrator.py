"""`python -m support.faulty_orchestrator`: an orchestrator whose commits fail now and then.

STORE_FAULTS is the share of them, and a number that decides which. `FaultyOrchestrator` runs it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import ClassVar
from unittest import mock

from llorch.errors import LlorchError
from orchestratord import __main__ as orchestratord
from orchestratord import app
from orchestratord.store.sql import SqlStore
from orchestratord.store.sqlite import open_sqlite
from support.orchestrator_process import OrchestratorProcess
from support.store_faults import faulty, now_and_then

_SETTING = "STORE_FAULTS"
_MOST_STARTS = 50


class FaultyOrchestrator(OrchestratorProcess):
    module: ClassVar[str] = "support.faulty_orchestrator"
    share: float = 0.0
    _lives = 0

    async def start(self) -> None:
        self._lives += 1
        self.environment = {**self.environment, **_environment(self.share, self._lives)}
        await super().start()

    async def start_serving(self) -> None:
        """A start reads and writes too, so it is tried again, as an init system does."""
        for _ in range(_MOST_STARTS):
            await self.start()
            try:
                await self.wait_serving()
            except (AssertionError, LlorchError):
                await self.end()
            else:
                return
        raise AssertionError(self.log()[-3000:])


def _environment(share: float, life: int) -> Mapping[str, str]:
    folders = (Path(__file__).parents[1], *(Path(__file__).parents[2] / name for name in ("services", "gen")))
    return {_SETTING: f"{share} {life}", "PYTHONPATH": os.pathsep.join(map(str, folders))}


def main() -> None:
    share, number = os.environ[_SETTING].split()
    chance = Random(int(number))  # noqa: S311  a schedule, not a secret

    def open_faulty(folder: Path, limit_mib: int, output_mib: int) -> SqlStore:
        return faulty(open_sqlite(folder, limit_mib, output_mib), now_and_then(chance, float(share)))

    with mock.patch.object(app, "open_sqlite", open_faulty):
        orchestratord.main()


if __name__ == "__main__":
    main()
