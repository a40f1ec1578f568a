import socket
from collections.abc import Iterator

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument
from pool_managerd.workers.ports import PortChooser, PortRange, parse_worker_ports

HOST = "127.0.0.1"


@pytest.fixture
def free() -> Iterator[PortRange]:
    """Three ports next to each other that no other program has."""
    for first in range(20_000, 60_000, 7):
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for port, held in enumerate((one, two, three), first):
                    held.bind((HOST, port))
            except OSError:
                continue
        yield PortRange(first, first + 2)
        return


def test_a_range_is_read_as_it_is_written() -> None:
    assert parse_worker_ports("9300-9399") == PortRange(9300, 9399)
    assert str(parse_worker_ports("1-65535")) == "1-65535"
    assert parse_worker_ports("any") is None


@pytest.mark.parametrize("text", ["", "9300", "9399-9300", "0-10", "1-65536", "a-b", "9300-9399 ", "-1-5"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_worker_ports(text)
    assert refused.value.violations[0].field == "worker_ports"


def test_the_system_chooses_where_no_range_is_given() -> None:
    assert PortChooser(None).choose(HOST, ()) == 0


def test_ports_are_given_out_in_turn_so_that_one_is_not_reused_at_once(free: PortRange) -> None:
    chooser = PortChooser(free)
    assert [chooser.choose(HOST, ()) - free.first for _ in range(4)] == [0, 1, 2, 0]


def test_ports_of_workers_and_of_other_programs_are_passed_over(free: PortRange) -> None:
    with socket.create_server((HOST, free.first)):
        assert PortChooser(free).choose(HOST, {free.first + 1}) == free.last


def test_a_range_that_is_all_taken_is_told(free: PortRange) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        PortChooser(free).choose(HOST, set(range(free.first, free.last + 1)))
    assert f"{free.first}-{free.last}" in refused.value.message
