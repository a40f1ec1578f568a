"""Each process that a program starts, while it is busy: the program is killed, and nothing of it is left.

Workers are another matter: they outlive a pool manager on purpose, for a time (`orphan_grace_s`).
"""

import asyncio
import os
import sys
import textwrap
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pool_managerd.preflight.engine import ENGINE_CHECK
from pool_managerd.vocabularies.process import VOCABULARY_PROGRAM
from support.orchestrator_stub import OrchestratorStub, serving
from support.pool_manager_commands import commanding
from support.pool_manager_process import pool_manager_process
from support.up import running_up
from support.whole_system import gguf
from worker_orcd.engines.llama_cpp import amx

BEGINS_WITHIN_S = 60.0
ENDS_WITHIN_S = 5.0

HANGS = """
    import ctypes, os, pathlib
    pathlib.Path(os.environ["HANGS_HERE"], str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(100)
"""
"""As native code does that never comes back: no signal handler of Python runs, and no other thread."""


@pytest.fixture
def hanging(tmp_path: Path) -> Mapping[str, str]:
    """Environment in which the engine's library hangs as soon as it is loaded."""
    package = tmp_path / "packages" / "llama_cpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(HANGS))
    places = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": places, "HANGS_HERE": str(folder_of_pids(tmp_path))}


@asynccontextmanager
async def killed(owner: Process) -> AsyncIterator[None]:
    """The owner, by SIGKILL, after the block."""
    try:
        yield
    finally:
        owner.kill()
        await owner.wait()


def folder_of_pids(folder: Path) -> Path:
    """Where a process that hangs leaves a file of this name; an empty one, for it may not be allowed to write."""
    pids = folder / "pids"
    pids.mkdir(exist_ok=True)
    return pids


async def hangs(folder: Path) -> psutil.Process:
    async with asyncio.timeout(BEGINS_WITHIN_S):
        while not (found := list(folder_of_pids(folder).iterdir())):
            await asyncio.sleep(0.02)
    return psutil.Process(int(found[0].name))


async def has_ended(process: psutil.Process) -> None:
    """And fails the test if it does not; then the process is ended here."""
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await has_ended_in_time(process)
    except TimeoutError:
        process.kill()
        raise


async def python(environment: Mapping[str, str], *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", *arguments, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )


@pytest.mark.req("POOL-2002")
async def test_the_check_of_the_engine_ends_with_the_program_that_asks(
    hanging: Mapping[str, str], tmp_path: Path
) -> None:
    """It outlived a pool manager once, for up to a minute."""
    asking = (
        f"import asyncio; from pool_managerd.preflight.engine import *; asyncio.run(find_engine([], {ENGINE_CHECK}))"
    )
    async with killed(await python(hanging, "-c", asking)):
        check = await hangs(tmp_path)
        assert "worker_orcd.engine_check" in check.cmdline()
    await has_ended(check)


@pytest.mark.req("POOL-2002")
async def test_the_look_at_the_machine_ends_with_the_doctor_and_the_check_with_the_look(
    hanging: Mapping[str, str], tmp_path: Path
) -> None:
    async with killed(await python(hanging, "-m", "llorch", "doctor", "--cpu", "--data-dir", str(tmp_path / "data"))):
        check = await hangs(tmp_path)
        look = check.parent()
        assert look is not None
        assert "pool_managerd.preflight" in look.cmdline()
    await has_ended(look)
    await has_ended(check)


async def test_a_reader_of_a_vocabulary_ends_with_the_program_that_asks_it(tmp_path: Path) -> None:
    reads = (
        f"import os; os.environ['HANGS_HERE'] = {str(folder_of_pids(tmp_path))!r}\n"
        "from worker_orcd import read_vocabulary\n"
        f"read_vocabulary._opened = lambda *_: exec({textwrap.dedent(HANGS)!r})\n"
        "read_vocabulary.main()"
    )
    program = (*VOCABULARY_PROGRAM[:2], "-c", reads)
    asking = (
        "import asyncio, pathlib\n"
        "from pool_managerd.vocabularies.process import VocabularyProcess\n"
        "async def ask():\n"
        f"    process = await VocabularyProcess.start({program!r}, 'sim', pathlib.Path('/'))\n"
        "    await process.ask(b'')\n"
        "asyncio.run(ask())"
    )
    async with killed(await python(os.environ, "-c", asking)):
        reader = await hangs(tmp_path)
    await has_ended(reader)


async def test_the_trial_of_amx_ends_with_the_worker_that_waits_for_it(
    hanging: Mapping[str, str], tmp_path: Path
) -> None:
    waits = "from worker_orcd.engines.llama_cpp.amx import amx_works; amx_works()"
    async with killed(await python(hanging, "-c", waits)):
        trial = await hangs(tmp_path)
        assert str(amx._PROBE) in trial.cmdline()
    await has_ended(trial)


async def test_a_chat_template_ends_with_its_worker(tmp_path: Path) -> None:
    """In the midst of a rendering: it has two seconds."""
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    renders = (
        "import datetime\n"
        "from worker_orcd.rendering.renderer import Renderer\n"
        f"renderer = Renderer({endless!r})\n"
        "renderer.open()\n"
        "print(renderer._process.pid, flush=True)\n"
        "renderer.render({}, datetime.datetime.now())"
    )
    owner = await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", renders, stdout=PIPE)
    async with killed(owner):
        assert owner.stdout is not None
        async with asyncio.timeout(BEGINS_WITHIN_S):
            template = psutil.Process(int(await owner.stdout.readline()))
            used = template.cpu_times().user
            while template.cpu_times().user < used + 0.1:
                await asyncio.sleep(0.01)
    await has_ended(template)


@pytest.mark.req("POOL-2004", "POOL-2005")
async def test_a_worker_that_still_loads_ends_where_no_pool_manager_takes_it_back(tmp_path: Path) -> None:
    async with (
        serving(OrchestratorStub()) as address,
        pool_manager_process(tmp_path / "pool", address, sim={"load_s": 100}, orphan_grace_s=1) as manager,
    ):
        await manager.start()
        await manager.snapshot()
        async with commanding(manager.address) as commands:
            await commands.start(f"file:{gguf(tmp_path)}", "w-1")
        async with asyncio.timeout(BEGINS_WITHIN_S):
            while not (pids := manager.worker_pids()):
                await asyncio.sleep(0.02)
        (worker,) = (psutil.Process(pid) for pid in pids)
        await manager.kill()
        async with asyncio.timeout(BEGINS_WITHIN_S):  # it may just have begun to start
            await has_ended_in_time(worker)


async def has_ended_in_time(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("moment", [r"orchestratord +starts", r"pool-managerd +starts", r"gatewayd +starts"])
async def test_what_up_has_started_ends_with_it_also_while_it_starts(tmp_path: Path, moment: str) -> None:
    async with running_up(tmp_path, "--simulate-gpu", "RTX 3090:24GiB") as up:
        await up.read_until(moment)
        family = psutil.Process(up.process.pid).children(recursive=True)
        assert family
        up.process.kill()
        await up.process.wait()
        async with asyncio.timeout(BEGINS_WITHIN_S):
            for process in family:
                await has_ended_in_time(process)
