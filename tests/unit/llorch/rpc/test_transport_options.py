"""What can't be seen within a test's time: pings are allowed by the side that gets them, and never run out."""

import pytest

from llorch.rpc.transport_options import Options, channel_options, server_options


@pytest.mark.parametrize("options", [server_options(), channel_options()])
def test_pings_go_on_without_data_and_without_calls(options: Options) -> None:
    values = dict(options)
    assert values["grpc.keepalive_time_ms"] < 60_000
    assert values["grpc.http2.max_pings_without_data"] == 0
    assert values["grpc.keepalive_permit_without_calls"] == 1


def test_the_server_allows_pings_more_often_than_they_come() -> None:
    allowed = dict(server_options())["grpc.http2.min_ping_interval_without_data_ms"]
    assert allowed < dict(channel_options())["grpc.keepalive_time_ms"]


def test_both_sides_bound_messages_alike() -> None:
    for key in ("grpc.max_receive_message_length", "grpc.max_send_message_length"):
        assert dict(server_options(1000))[key] == dict(channel_options(1000))[key] == 1000
