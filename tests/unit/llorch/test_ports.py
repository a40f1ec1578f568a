import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llorch import ports
from llorch.errors import InvalidArgument


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_taken_port_is_described_by_its_holder_and_a_free_one(taken: int) -> None:
    text = ports.PortTaken("127.0.0.1", taken).message
    found = re.fullmatch(
        rf"port {taken} is taken by (.+) \(pid (\d+)\); (\d+) is free: use --bind 127\.0\.0\.1:\3", text
    )
    assert found, text
    assert int(found[2]) == os.getpid()
    ports.ensure_free("127.0.0.1", int(found[3]))


def test_a_holder_that_can_not_be_seen_is_said_so(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def denied(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    assert "taken by a process of another user" in ports.PortTaken("127.0.0.1", taken).message


def test_a_taken_port_is_refused_and_a_free_one_not(taken: int) -> None:
    with pytest.raises(ports.PortTaken) as caught:
        ports.ensure_free("127.0.0.1", taken)
    assert caught.value.metadata == {"port": str(taken)}
    free = ports.free_port()
    ports.ensure_free("127.0.0.1", free)
    assert ports.is_free("127.0.0.1", free)
    assert not ports.is_free("127.0.0.1", taken)
    assert not ports.is_free("192.0.2.7", 0)


def test_an_address_of_another_machine_is_refused_as_such() -> None:
    with pytest.raises(InvalidArgument, match=r"192\.0\.2\.7 is no address of this machine"):
        ports.ensure_free("192.0.2.7", 0)


@pytest.mark.parametrize(
    ("bind", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_an_address_is_split_and_joined(bind: str, expected: tuple[str, int]) -> None:
    assert ports.split_address(bind) == expected
    assert ports.join_address(*expected) == bind


@pytest.mark.parametrize(
    "bind", ["", "8080", ":8080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "h:-1", "h:²"]
)
def test_what_is_no_address_is_refused(bind: str) -> None:
    with pytest.raises(InvalidArgument, match="host:port"):
        ports.split_address(bind)


def test_a_name_without_an_address_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no-such-host"):
        ports.resolve_bind("no-such-host.invalid")


def test_the_address_file_holds_one_line_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    ports.announce_address(tmp_path / "address", "127.0.0.1:8090")
    assert (tmp_path / "address").read_text() == "127.0.0.1:8090\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["address"]


def test_what_was_being_announced_when_its_daemon_was_killed_is_removed(tmp_path: Path) -> None:
    left, now, other = (tmp_path / name for name in (".address.1", ".address.2", ".addresses.1"))
    for path in (left, now, other):
        path.touch()
    for path in (left, other):
        os.utime(path, (1, 1))
    ports.announce_address(tmp_path / "address", "127.0.0.1:1")
    assert sorted(tmp_path.iterdir()) == sorted((now, other, tmp_path / "address"))
