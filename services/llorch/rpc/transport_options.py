"""Channel arguments of gRPC, for both sides in one place because they have to fit together."""

import json
from typing import Any

MAX_MESSAGE_BYTES = 16 * 1024 * 1024

CALLS_PER_CONNECTION = 100
"""Of any kind, at once. Calls are taken in by turns, each at the cost of about 0.2 ms, so this is what a connection can
have others wait. A client holds back what is beyond it, or opens a further connection, if its channel may have one.
"""

Options = tuple[tuple[str, Any], ...]

_PING_EVERY_MS = 20_000
_PING_ANSWER_WITHIN_MS = 10_000
# A server ends a connection whose pings come more often than this. Its default of 300 s is longer than
# `_PING_EVERY_MS`, and so would end every connection that is silent for a while.
_SHORTEST_PING_INTERVAL_MS = 5_000
# A gateway has eleven for its thousand requests, a node two. With room for other files where a process may have 1024.
_MOST_CONNECTIONS = 512
# For TLS and the preface. The library's own 120 s let strangers hold connections for that long.
_HANDSHAKE_WITHIN_MS = 20_000
# Then the connection is ended in order; the channel of a client that is still there opens another with its next call.
_WITHOUT_CALLS_MS = 300_000
_IDENTITY_ONLY = 1
_METADATA_BYTES = 32 * 1024


def server_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> Options:
    return (
        *_both_sides(max_message_bytes),
        # By default two servers share a port, and each gets some of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION),
        # It refuses calls of clients that keep to the bound, since those that have ended count until they are freed.
        # Resets without end are bounded by the 1000 calls that may wait to be taken in, the library's own default.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_allowed_incoming_connections", _MOST_CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_WITHIN_MS),
        ("grpc.max_connection_idle_ms", _WITHOUT_CALLS_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", _SHORTEST_PING_INTERVAL_MS),
    )


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES, *, max_connections: int = 1) -> Options:
    """`max_connections`: how many the channel may have, each once those before it have as many calls as they may."""
    return (
        *_both_sides(max_message_bytes),
        ("grpc.service_config", json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": max_connections}})),
        ("grpc.max_connections_per_subchannel_cap", max_connections),
        # Two channels to one address are two connections; else they share one, and lose it together.
        ("grpc.use_local_subchannel_pool", 1),
        # A server that has just come back is found again soon: within the 2 s for which the orchestrator keeps what it
        # has no reader of. The default backs off to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Daemons are reached directly, whatever proxy the environment names for the web.
        ("grpc.enable_http_proxy", 0),
        # No retries by gRPC: the caller knows which call may be repeated.
        ("grpc.enable_retries", 0),
    )


def _both_sides(max_message_bytes: int) -> Options:
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A status with its details travels as metadata; the default of 8 KiB drops it when it is longer.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES),
        ("grpc.keepalive_time_ms", _PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_WITHIN_MS),
        # The library waits for this one, 60 s by default, whatever the one above says.
        ("grpc.http2.ping_timeout_ms", _PING_ANSWER_WITHIN_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # No bound on the pings of a connection without data: a silent prefill is no reason to end it.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
    )
