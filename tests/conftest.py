"""Rules for every test: nothing is left behind, and a requirement that a test claims to prove exists.

- A test fails if it, or a fixture of it, leaves an asyncio task, a child process (also a grandchild whose
  parent died) or a file descriptor behind. Ending may take `support.leaks.GRACE_S`.
- `@pytest.mark.req("WORK-3001")` names a row of docs/requirements.md; an unknown one fails the test.
"""

import contextlib
import gc
import inspect
import os
import signal
from collections.abc import AsyncIterator, Iterator

import grpc.aio
import hypothesis
import pytest
import uvloop

from support import example_count, leaks, requirements
from worker_orcd.engines.llama_cpp.threads import core_of

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile(
    "shared_machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=example_count.examples(100),
)
hypothesis.settings.load_profile("shared_machine")

# The requirements that a test claims to prove and docs/requirements.md does not have.
_UNKNOWN = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--own-cores",
        action="store_true",
        help="Give each of xdist's processes, with all that it starts, cores of its own. An engine computes with one "
        "thread per core that it finds; threads of two engines on the same cores would hold each other up by spinning.",
    )


def pytest_configure(config: pytest.Config) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and config.getoption("--own-cores"):
        number, count = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        # The threads of a core stay together. A process that stands in for one that crashed has a higher number.
        cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (core_of(cpu), cpu))
        begin, end = (len(cpus) * (number % count + at) // count for at in (0, 1))
        os.sched_setaffinity(0, cpus[begin:end] or cpus)


def pytest_sessionstart() -> None:
    leaks.adopt_orphans()
    # gRPC's poller, with its sockets, lives from the first channel or server to the last; this one holds it
    # for the whole session, so that no test seems to have left it behind.
    grpc.aio.init_grpc_aio()
    # libuv keeps a pipe from its first loop on.
    uvloop.new_event_loop().close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    known = requirements.read()
    for item in items:
        claimed = [identifier for mark in item.iter_markers("req") for identifier in mark.args]
        item.stash[_UNKNOWN] = [identifier for identifier in claimed if identifier not in known]


def pytest_collection_finish() -> None:
    """What was imported stays until the end: the collector needs not look through it in the midst of each test."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Not at collection, where pytest-xdist would hide what a worker raises."""
    if unknown := item.stash[_UNKNOWN]:
        pytest.fail(f"claims to prove {', '.join(unknown)}, which docs/requirements.md does not have", pytrace=False)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    descriptors = leaks.file_descriptors()
    children = leaks.child_processes()
    yield
    left = leaks.wait_until_none(lambda: leaks.child_processes() - children)
    described = leaks.describe_processes(left)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"left running (and killed now): {described}"
    open_now = leaks.wait_until_none(lambda: leaks.new_file_descriptors(descriptors))
    assert not open_now, f"left open: {dict(open_now)}"


@pytest.fixture(autouse=True)
def _no_task_left_behind(request: pytest.FixtureRequest, _nothing_left_behind: None) -> None:
    """Comes after the other one, so that the event loop is made, and closed, between its two looks."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_look_for_tasks")


@pytest.fixture
async def _look_for_tasks() -> AsyncIterator[None]:
    yield
    left = await leaks.tasks_left()
    assert not left, f"tasks left running: {left}"
