"""Hosts of a test, in namespaces of their own: cables can be pulled, and nothing is left of them."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.network_namespaces import Host, hosts, need

LISTEN = "import socket; s = socket.create_server(('', 8090)); print('listens', flush=True)\nwhile True: s.accept()"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 8090), float(sys.argv[2]))"


@contextmanager
def listening(host: Host) -> Iterator[None]:
    command = (*host.prefix, sys.executable, "-c", LISTEN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "listens"
            yield
        finally:
            process.kill()


def reaches(host: Host, within_s: float) -> bool:
    command = (*host.prefix, sys.executable, "-c", CONNECT, host.first, str(within_s))
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def names_in(folder: str) -> set[str]:
    """Of this process: other tests have theirs at the same time."""
    own = re.compile(rf"(?<!\d){os.getpid()}(?!\d)")
    return {path.name for path in Path(folder).glob("*") if own.search(path.name)}


def test_a_pulled_cable_cuts_one_host_off_until_it_is_put_back() -> None:
    need()
    with hosts("brain", "attic", "barn") as (found, cables), listening(found["brain"]):
        socket.create_connection((found["brain"].address, 8090), 5).close()
        cables["attic"].hold()
        assert not reaches(found["attic"], 0.5)
        assert reaches(found["barn"], 5)
        cables["attic"].release()
        assert reaches(found["attic"], 5)


def test_two_systems_at_once_have_hosts_of_the_same_names_and_cables_of_their_own() -> None:
    need()
    with (
        hosts("brain", "attic") as (found, cables),
        hosts("brain", "attic") as (others, _),
        listening(found["brain"]),
        listening(others["brain"]),
    ):
        cables["attic"].hold()
        assert not reaches(found["attic"], 0.5)
        assert reaches(others["attic"], 5)


def fail_with_hosts() -> None:
    with hosts("brain", "attic"):
        assert any("attic" in name for name in names_in("/run/netns"))
        raise ZeroDivisionError


def test_nothing_is_left_of_them_where_the_test_fails() -> None:
    need()
    before = names_in("/run/netns"), names_in("/sys/class/net")
    with pytest.raises(ZeroDivisionError):
        fail_with_hosts()
    assert (names_in("/run/netns"), names_in("/sys/class/net")) == before
