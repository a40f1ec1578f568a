import errno
import json
from pathlib import Path
from typing import Any

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from pool_managerd import control
from pool_managerd.control import Authority, CommandHeader, ControlGuard


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


def test_a_node_with_a_full_disk_obeys_the_latest_epoch_and_keeps_it_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "control.json"
    guard = ControlGuard(path)
    guard.follow("home", 5)

    def full(_path: Path, _content: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(control, "write_durably", full)
        guard.follow("home", 6)
        with guard.applying(header(1, epoch=6)):
            pass
        assert refusal(guard, header(2, epoch=5)) is Reason.STALE_EPOCH
        assert (guard.authority, guard.applied_command_seq) == (Authority("home", 6), 1)
        told = capsys.readouterr().out
        assert told.count("epoch_not_kept") == 1
        assert "No space left on device" in told
        assert "make room on the disk of data_dir" in told
        assert ControlGuard(path).authority == Authority("home", 5)
    with guard.applying(header(2, epoch=6)):
        assert json.loads(path.read_text())["control_epoch"] == 6
    assert guard.applied_command_seq == 2, "it is still the same epoch"
    assert "epoch_kept" in capsys.readouterr().out


def test_an_authority_that_can_not_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="can't be read: Is a directory"):
        ControlGuard(tmp_path)


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
