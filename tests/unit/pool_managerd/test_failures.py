from dataclasses import replace

from pool_managerd.workers import failures
from pool_managerd.workers.failures import WAS_FINE_AFTER_S, FailureCount
from support.worker_host import worker_spec

SPEC = worker_spec("file:/tiny.gguf")


def test_failures_of_like_workers_are_counted_whatever_their_ids() -> None:
    count = FailureCount()
    assert [count.failed(replace(SPEC, worker_id=f"w-{number}"), 0.0) for number in range(3)] == [1, 2, 3]


def test_another_file_or_another_device_is_another_matter() -> None:
    count = FailureCount()
    count.failed(SPEC, 0.0)
    assert count.failed(replace(SPEC, source="file:/other.gguf"), 0.0) == 1
    assert count.failed(replace(SPEC, device_ids=("sim-1",)), 0.0) == 1
    assert count.failed(SPEC, 1.0) == 2


def test_one_that_was_fine_for_a_while_begins_anew() -> None:
    count = FailureCount()
    count.failed(SPEC, 0.0)
    assert count.failed(SPEC, WAS_FINE_AFTER_S - 1) == 2
    assert count.failed(SPEC, WAS_FINE_AFTER_S) == 1
    assert count.failed(SPEC, 0.0) == 2


def test_what_is_remembered_is_bounded() -> None:
    count = FailureCount()
    for number in range(failures._KEEP + 1):
        count.failed(replace(SPEC, source=f"file:/{number}.gguf"), 0.0)
    assert len(count._counts) == failures._KEEP
    assert count.failed(replace(SPEC, source="file:/0.gguf"), 0.0) == 1
