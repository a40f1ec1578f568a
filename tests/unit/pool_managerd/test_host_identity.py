"""The id of a host: made once, kept, and told only once it is kept."""

import errno
from pathlib import Path
from typing import Any

import pytest

from llorch.errors import FailedPrecondition, Reason
from pool_managerd import host_identity
from pool_managerd.host_identity import HostIdentity


def test_it_stays_for_every_start(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    first = HostIdentity(path)
    made = first.host_id()
    assert made.startswith("host-")
    assert (first.host_id(), HostIdentity(path).host_id()) == (made, made)


def test_with_a_full_disk_the_node_starts_without_one_and_tells_it_once_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that the next start does not know would be another host's."""

    def full(_path: Path, _content: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    host = HostIdentity(tmp_path / "host.json")
    with monkeypatch.context() as patched:
        patched.setattr(host_identity, "write_durably", full)
        assert [host.host_id(), host.host_id()] == ["", ""]
    told = capsys.readouterr().out
    assert told.count("host_id_not_kept") == 1
    assert "No space left on device" in told
    assert host.host_id() == HostIdentity(tmp_path / "host.json").host_id() != ""


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"host_id": ""}', '{"host_id": 5}'])
def test_a_file_that_does_not_hold_one_is_refused_and_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)
    with pytest.raises(FailedPrecondition, match="does not hold what this program writes there") as refused:
        HostIdentity(path)
    assert refused.value.reason is Reason.STORE_FAILED
    assert path.read_text() == text


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="can't be read: Is a directory"):
        HostIdentity(tmp_path)
