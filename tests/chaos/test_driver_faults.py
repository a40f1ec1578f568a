"""A GPU driver that does what drivers do: cards fall off the bus and come back, it hangs, it is loaded anew.

After each fault the orchestrator has to hear how the cards are, from the same daemon. `make chaos-long` does 100
faults, `make chaos` and the suite a tenth of that.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from llama_orch.v2 import device_pb2
from llorch.logs import get_logger
from support import chaos_count
from support.nvml_stand_in import DRIVER_NOT_LOADED, GPU_IS_LOST, NvmlStandIn, StandInGpu
from support.orchestrator_stub import NodeReport, OrchestratorStub, serving, snapshot_of
from support.pool_manager_process import pool_manager_process

FAULTS = chaos_count.of_long(100)
CARDS = 4
TOLD_WITHIN_S = 15.0  # a driver that was loaded anew is looked for every 3 s
SEED = 4

_log = get_logger(__name__)


@dataclass
class Driver:
    """What is wrong with it now; `show` lets the daemon find that."""

    library: NvmlStandIn
    chance: random.Random

    def falls_off_the_bus(self) -> None:
        self.chance.choice(self.library.gpus).error = GPU_IS_LOST

    def comes_back(self) -> None:
        for gpu in self.library.gpus:
            gpu.error = 0

    def hangs(self) -> None:
        self.library.hangs = True

    def is_unloaded(self) -> None:
        self.library.driver_load += 1
        self.library.init_error = DRIVER_NOT_LOADED

    def is_well(self) -> None:
        self.library.hangs, self.library.init_error = False, 0

    def another_program_takes_memory(self) -> None:
        self.chance.choice(self.library.gpus).used_mib = self.chance.randrange(0, 24576)

    def does_something(self) -> str:
        """Memory changes at any time, so that what is told is fresh and not only right."""
        deeds: tuple[Callable[[], None], ...] = (
            (self.is_well, self.comes_back)
            if self.library.hangs or self.library.init_error
            else (self.falls_off_the_bus, self.comes_back, self.hangs, self.is_unloaded)
        )
        deed = self.chance.choice(deeds)
        deed()
        self.another_program_takes_memory()
        self.library.show()
        return deed.__name__

    def expected(self) -> dict[int, tuple[int, int | None]]:
        """State and memory of each card; the memory of a lost one is whatever it was."""
        all_lost = self.library.hangs or bool(self.library.init_error)
        return {
            index: (device_pb2.DEVICE_STATE_LOST, None)
            if all_lost or gpu.error
            else (device_pb2.DEVICE_STATE_OK, gpu.used_mib)
            for index, gpu in enumerate(self.library.gpus)
        }


class Heard:
    """What the orchestrator knows of the cards after all reports so far."""

    def __init__(self) -> None:
        self.cards: dict[int, device_pb2.Device] = {}

    def is_now(self, expected: dict[int, tuple[int, int | None]]) -> Callable[[NodeReport], bool]:
        def after(report: NodeReport) -> bool:
            self.cards |= {device.index: device for device in snapshot_of(report).devices}
            return all(
                self.cards[index].state == state and used_mib in (None, self.cards[index].memory_used_mib)
                for index, (state, used_mib) in expected.items()
            )

        return after


@pytest.mark.req("POOL-2001")
async def test_whatever_the_driver_does_the_daemon_tells_how_the_cards_are(tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    library = NvmlStandIn(tmp_path / "driver", *(StandInGpu(f"GPU-{index}") for index in range(CARDS)))
    driver = Driver(library, random.Random(SEED))  # noqa: S311  # a schedule, no secret
    orchestrator, heard, told_s = OrchestratorStub(), Heard(), []
    node = pool_manager_process(tmp_path / "node", "", simulate_gpu=None)
    async with serving(orchestrator) as address, node as process:
        process.orchestrator, process.environment = address, library.environment()
        try:
            await process.start()
            await orchestrator.wait_report(heard.is_now(driver.expected()), within_s=30)
            for fault in range(1, FAULTS + 1):
                orchestrator.reports.clear()
                deed, began = driver.does_something(), time.monotonic()
                try:
                    await orchestrator.wait_report(heard.is_now(driver.expected()), TOLD_WITHIN_S)
                except TimeoutError:
                    pytest.fail(f"fault {fault} of seed {SEED} ({deed}): {driver.expected()} was not told")
                told_s.append(time.monotonic() - began)
            assert orchestrator.links == 1
        finally:
            driver.is_well()
            library.show()
    _log.info("driver_faults", times=FAULTS, median_s=round(median(told_s), 2), longest_s=round(max(told_s), 2))
