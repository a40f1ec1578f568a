"""How many connections to its orchestrator a gateway takes."""

import pytest

from gatewayd.app import connections_for
from llorch.rpc.transport_options import _MOST_CONNECTIONS, CALLS_PER_CONNECTION


@pytest.mark.parametrize(("max_requests", "expected"), [(1, 1), (1024, 11), (65536, 128)])
def test_connections_are_enough_for_all_requests_and_leave_the_orchestrator_some(
    max_requests: int, expected: int
) -> None:
    assert connections_for(max_requests) == expected
    assert expected * CALLS_PER_CONNECTION >= min(max_requests, 1024 + 4096)
    assert expected <= _MOST_CONNECTIONS // 4
