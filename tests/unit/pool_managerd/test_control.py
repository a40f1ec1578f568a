from pathlib import Path

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from pool_managerd.control import CommandHeader, ControlGuard


@pytest.fixture
def guard(tmp_path: Path) -> ControlGuard:
    return ControlGuard(tmp_path / "control.json")


def header(seq: int, epoch: int = 1, cluster: str = "home") -> CommandHeader:
    return CommandHeader(cluster, epoch, seq)


def refusal(guard: ControlGuard, command: CommandHeader) -> Reason:
    with pytest.raises(FailedPrecondition) as refused, guard.applying(command):
        pass
    return refused.value.reason


def test_the_highest_epoch_wins(guard: ControlGuard) -> None:
    with guard.applying(header(1, epoch=5)):
        pass
    assert refusal(guard, header(1, epoch=4)) is Reason.STALE_EPOCH
    with guard.applying(header(1, epoch=6)):
        pass


def test_the_epoch_survives_a_restart(tmp_path: Path) -> None:
    with ControlGuard(tmp_path / "control.json").applying(header(1, epoch=5)):
        pass
    assert refusal(ControlGuard(tmp_path / "control.json"), header(1, epoch=4)) is Reason.STALE_EPOCH


def test_another_cluster_is_followed_only_by_the_link(guard: ControlGuard) -> None:
    guard.follow("home", 7)
    assert refusal(guard, header(1, epoch=9, cluster="other")) is Reason.STALE_EPOCH
    guard.follow("other", 1)
    with guard.applying(header(1, epoch=1, cluster="other")):
        pass
    assert refusal(guard, header(1, epoch=9, cluster="home")) is Reason.STALE_EPOCH


def test_a_superseded_orchestrator_is_not_followed(guard: ControlGuard) -> None:
    guard.follow("home", 7)
    with pytest.raises(FailedPrecondition):
        guard.follow("home", 6)


def test_a_command_counts_as_applied_when_it_and_all_before_it_are_done(guard: ControlGuard) -> None:
    assert guard.applied_command_seq == 0
    with guard.applying(header(2)):
        assert guard.applied_command_seq == 0
        with guard.applying(header(5)):
            assert guard.applied_command_seq == 0
        assert guard.applied_command_seq == 1
    assert guard.applied_command_seq == 5


def test_a_command_that_was_refused_is_applied_as_well(guard: ControlGuard) -> None:
    with pytest.raises(ZeroDivisionError), guard.applying(header(3)):
        _ = 1 / 0
    assert guard.applied_command_seq == 3


def test_a_new_epoch_counts_its_commands_anew(guard: ControlGuard) -> None:
    with guard.applying(header(9)):
        guard.follow("home", 2)
    assert guard.applied_command_seq == 0


@pytest.mark.parametrize("command", [header(0), header(1, epoch=0), header(1, cluster="")])
def test_an_incomplete_header_is_refused(guard: ControlGuard, command: CommandHeader) -> None:
    with pytest.raises(InvalidArgument), guard.applying(command):
        pass
