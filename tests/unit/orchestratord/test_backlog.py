"""What waits before a task, by what is known of it, whatever came and went meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core.facts.backlog import Backlog, Line, TaskSize

pytestmark = pytest.mark.req("ORCH-1016")

SIZES = st.builds(TaskSize, st.integers(0, 1000), st.none() | st.integers(1, 9000), st.booleans())


def summed(backlog: Backlog) -> tuple[int, int]:
    """How many tasks, and all tokens that they may generate."""
    limits = sum(round((size.limit or 0) * tasks) for size, tasks in backlog.parts())
    return backlog.tasks, limits


@given(st.lists(SIZES, max_size=300), st.data())
def test_a_line_knows_what_came_before(sizes: list[TaskSize], data: st.DataObject) -> None:
    line = Line()
    for arrival, size in enumerate(sizes):
        line.add(arrival, size)
    gone = data.draw(st.sets(st.integers(0, max(0, len(sizes) - 1)), max_size=len(sizes)))
    for arrival in gone if sizes else ():
        line.remove(arrival)
    arrival = data.draw(st.integers(0, len(sizes)))
    left = [size for came, size in enumerate(sizes) if came < arrival and came not in gone]
    tasks, limits = summed(line.before(arrival))
    assert tasks == len(left)
    assert limits == pytest.approx(sum(size.limit or 0 for size in left), abs=len(left))
    assert bool(line) == bool(set(range(len(sizes))) - gone)


def test_answers_that_are_bounded_are_not_mixed_with_those_of_other_bounds() -> None:
    backlog = Backlog()
    for size in (TaskSize(0, 8), TaskSize(0, 9), TaskSize(0, 5000), TaskSize(0, 5000, fills_limit=True), TaskSize()):
        backlog.add(size)
    assert dict(backlog.parts()) == {
        TaskSize(0, 8): 2,
        TaskSize(0, 5000): 1,
        TaskSize(0, 5000, fills_limit=True): 1,
        TaskSize(): 1,
    }


def test_a_share_of_a_backlog_is_as_the_whole_is() -> None:
    whole = Backlog()
    for _ in range(3):
        whole.add(TaskSize(10, 100, fills_limit=True))
    part = Backlog()
    part.join(whole, 1 / 3)
    assert summed(part) == (1, 100)
