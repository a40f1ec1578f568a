import ast
import inspect
import subprocess
import sys

import pytest

from llorch.errors import InvalidArgument
from llorch.sdk.connection import find_connection


def test_an_argument_goes_before_the_environment_before_the_default() -> None:
    env = {"LLORCH_ADDRESS": "garage:1", "LLORCH_API_TOKEN": "from-env"}

    assert find_connection("attic:2", "given", env).address == "attic:2"
    assert find_connection("attic:2", "given", env).token == "given"
    assert find_connection(env=env).address == "garage:1"
    assert find_connection(env=env).token == "from-env"
    assert find_connection(env={}).address == "127.0.0.1:8090"
    assert find_connection(env={}).token is None


def test_a_host_alone_gets_the_usual_port() -> None:
    assert find_connection("garage", env={}).address == "garage:8090"
    assert find_connection("[::1]", env={}).address == "[::1]:8090"


@pytest.mark.parametrize("address", ["http://garage:8090", "garage:", "garage:0", "garage:99999", ":8090", "a:b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="host:port"):
        find_connection(address, env={})


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(find_connection(token="secret", env={}))


def test_importing_llorch_imports_neither_grpc_nor_the_sdk() -> None:
    code = "import sys, llorch; sys.exit(any(m in sys.modules for m in ('grpc', 'llorch.sdk', 'google.protobuf')))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_that_llorch_offers_is_there() -> None:
    import llorch

    assert all(getattr(llorch, name) is not None for name in llorch._HOME)


def test_type_checkers_see_the_names_that_llorch_offers() -> None:
    import llorch

    imports = [node for node in ast.walk(ast.parse(inspect.getsource(llorch))) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.asname}

    assert seen == llorch._HOME
