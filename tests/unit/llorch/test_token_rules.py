from pathlib import Path

import pytest
from pydantic import Field

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.settings import DaemonSettings, SettingsError, auth_optional_field, read
from llorch.token_rules import EXAMPLE_TOKENS, BearerToken, refuse_open_bind

GOOD = "0123456789abcdef"
OPEN = ["0.0.0.0:1", "[::]:1", "192.168.1.7:1", "gpu-box:1"]


class DoorSettings(DaemonSettings, section="gateway"):
    token: BearerToken | None = Field(None, description="Bearer token.")
    auth_optional: bool = auth_optional_field()


@pytest.fixture
def env(tmp_path: object) -> dict[str, str]:
    """No settings file of this machine is found."""
    return {"XDG_CONFIG_HOME": f"{tmp_path}/nothing"}


@pytest.mark.parametrize("token", [None, "x", *EXAMPLE_TOKENS])
@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.0.0.2:1", "localhost:1", "[::1]:1"])
def test_on_loopback_any_token_will_do_and_none(bind: str, token: str | None) -> None:
    refuse_open_bind(bind, token)


@pytest.mark.parametrize("bind", OPEN)
def test_an_open_bind_needs_a_token(bind: str) -> None:
    refuse_open_bind(bind, GOOD)
    for none in (None, ""):
        with pytest.raises(FailedPrecondition, match=r"bind .*--token") as caught:
            refuse_open_bind(bind, none)
        assert caught.value.reason is Reason.TOKEN_MISSING


@pytest.mark.parametrize("bind", OPEN)
def test_an_open_bind_needs_a_token_that_is_hard_to_guess(bind: str) -> None:
    with pytest.raises(InvalidArgument, match=r"metrics_token: has 15 characters.*openssl rand -hex 24") as caught:
        refuse_open_bind(bind, GOOD[:-1], "metrics_token")
    assert GOOD[:-1] not in caught.value.message


@pytest.mark.parametrize("token", sorted(EXAMPLE_TOKENS))
def test_an_open_bind_takes_no_token_of_an_example(token: str) -> None:
    with pytest.raises(InvalidArgument, match=r"token: is the one of an example.*openssl rand -hex 24"):
        refuse_open_bind("0.0.0.0:1", token)


@pytest.mark.parametrize("token", ["", " ", "two words", "tab\t", "é", "x" * 4097])
def test_a_token_that_no_header_carries_is_refused_without_being_shown(env: dict[str, str], token: str) -> None:
    with pytest.raises(SettingsError, match=r"LLORCH_GATEWAY_TOKEN: .*openssl rand") as caught:
        read(DoorSettings, [], env | {"LLORCH_GATEWAY_TOKEN": token})
    assert len(token) < 2 or token not in caught.value.message


@pytest.mark.parametrize(
    ("variables", "flags", "optional"),
    [
        ({}, [], False),
        ({"AUTH_OPTIONAL": "true"}, [], True),
        ({"AUTH_OPTIONAL": ""}, [], False),
        ({"LLORCH_GATEWAY_AUTH_OPTIONAL": "true"}, [], True),
        ({"AUTH_OPTIONAL": "true", "LLORCH_GATEWAY_AUTH_OPTIONAL": "false"}, [], False),
        ({"AUTH_OPTIONAL": "true"}, ["--no-auth-optional"], False),
        ({"AUTH_OPTIONAL": "false"}, ["--auth-optional"], True),
        ({"LLORCH_POOL_MANAGER_AUTH_OPTIONAL": "true"}, [], False),
    ],
)
def test_auth_is_optional_where_it_is_said(
    env: dict[str, str], variables: dict[str, str], flags: list[str], optional: bool
) -> None:
    assert read(DoorSettings, flags, env | variables).auth_optional is optional


@pytest.mark.parametrize(
    ("in_file", "variables", "flags", "optional"),
    [
        ("true", {}, [], True),
        ("false", {"AUTH_OPTIONAL": "true"}, [], False),
        ("true", {"AUTH_OPTIONAL": "false"}, [], True),
        ("false", {"AUTH_OPTIONAL": "false", "LLORCH_GATEWAY_AUTH_OPTIONAL": "true"}, [], True),
        ("true", {"LLORCH_GATEWAY_AUTH_OPTIONAL": "false"}, [], False),
        ("true", {}, ["--no-auth-optional"], False),
    ],
)
def test_what_the_file_says_of_a_daemon_goes_before_what_is_said_of_all(
    env: dict[str, str], tmp_path: Path, in_file: str, variables: dict[str, str], flags: list[str], optional: bool
) -> None:
    file = tmp_path / "llama-orch.toml"
    file.write_text(f"[gateway]\nauth_optional = {in_file}\n")
    assert read(DoorSettings, flags, env | variables | {"LLORCH_CONFIG": str(file)}).auth_optional is optional


@pytest.mark.parametrize("variable", ["AUTH_OPTIONAL", "LLORCH_GATEWAY_AUTH_OPTIONAL"])
def test_a_value_that_means_nothing_is_told_with_its_variable(env: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable}: .*got \'maybe\'"):
        read(DoorSettings, [], env | {variable: "maybe"})


def test_daemons_without_the_setting_do_not_mind_the_variable(env: dict[str, str]) -> None:
    class WorkerSettings(DaemonSettings, section="worker"):
        pass

    read(WorkerSettings, [], env | {"AUTH_OPTIONAL": "maybe"})
