import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from worker_orcd.control_guard import ControlGuard


def test_a_superseded_orchestrator_is_refused() -> None:
    guard = ControlGuard()
    guard.check("c", 3, attached=False)
    guard.check("c", 3, attached=True)
    with pytest.raises(FailedPrecondition) as refused:
        guard.check("c", 2, attached=False)
    assert refused.value.reason is Reason.STALE_EPOCH
    guard.check("c", 4, attached=True)


def test_another_cluster_takes_over_only_when_no_orchestrator_is_attached() -> None:
    guard = ControlGuard()
    guard.check("c", 7, attached=False)
    with pytest.raises(FailedPrecondition):
        guard.check("d", 9, attached=True)
    guard.check("d", 1, attached=False)
    guard.check("d", 1, attached=True)


@pytest.mark.parametrize(("cluster_id", "epoch"), [("", 1), ("c", 0)])
def test_a_command_without_a_header_is_refused(cluster_id: str, epoch: int) -> None:
    with pytest.raises(InvalidArgument):
        ControlGuard().check(cluster_id, epoch, attached=False)
