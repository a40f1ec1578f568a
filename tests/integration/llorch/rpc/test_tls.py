"""A server and a channel with TLS."""

from typing import Any

import grpc
import pytest
import trustme
from google.protobuf.wrappers_pb2 import StringValue

from llorch import errors
from llorch.auth import BearerAuth
from llorch.rpc.client import call, open_channel
from llorch.rpc.server import RpcServer
from support.scripted_service import SERVICE, Methods, Script, add_to_server


async def echo(request: Any, _context: Any) -> Any:
    return request


async def test_a_call_over_tls_is_answered_and_one_without_it_is_not(script: Script) -> None:
    script.unary = echo
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    key, chain = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
    server = RpcServer(
        name="tls",
        bind="127.0.0.1:0",
        authenticator=BearerAuth(None),
        tls=grpc.ssl_server_credentials([(key, chain)]),
    )
    server.add(SERVICE, add_to_server, script)
    address = await server.start()
    request = StringValue(value="x")
    async with (
        open_channel(address, tls=grpc.ssl_channel_credentials(authority.cert_pem.bytes())) as trusted,
        open_channel(address) as plain,
    ):
        assert (await call(Methods(trusted).unary, request, timeout_s=5)).value == "x"
        with pytest.raises(errors.Unavailable):
            await call(Methods(plain).unary, request, timeout_s=5)
    await server.stop(0)
