import pytest

from llorch.auth import BearerAuth, Identity, is_app_key, is_loopback, key_hash, new_app_key, refuse_open_bind
from llorch.errors import FailedPrecondition, Reason, Unauthenticated

HERE = "ipv4:127.0.0.1:5000"
ELSEWHERE = "ipv4:192.168.1.7:5000"
RIGHT = {"authorization": "Bearer s3cret"}
WRONG = {"authorization": "Bearer other"}


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (HERE, True),
        ("ipv4:127.8.9.1:1", True),
        ("ipv6:%5B::1%5D:5000", True),
        ("ipv6:[::1]:5000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:5000", True),
        ("unix:/run/x.sock", True),
        (ELSEWHERE, False),
        ("ipv6:%5B2001:db8::1%5D:5000", False),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5000", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", False),
        ("vsock:3:5000", False),
        ("", False),
    ],
)
def test_loopback_peers_are_told_from_others(peer: str, expected: bool) -> None:
    assert is_loopback(peer) is expected


def test_a_loopback_peer_needs_no_token() -> None:
    assert BearerAuth("s3cret").authenticate({}, HERE) == Identity("localhost")
    assert BearerAuth(None).authenticate(RIGHT, HERE) == Identity("localhost")


def test_a_token_names_its_bearer_also_on_loopback() -> None:
    assert BearerAuth("s3cret").authenticate(RIGHT, HERE).name == "token:1ec1c2"


def test_a_wrong_token_is_refused_also_on_loopback() -> None:
    with pytest.raises(Unauthenticated) as caught:
        BearerAuth("s3cret").authenticate(WRONG, HERE)
    assert caught.value.reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Basic s3cret"}, {"authorization": "Bearer "}])
def test_a_remote_peer_needs_a_token(metadata: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        BearerAuth("s3cret").authenticate(metadata, ELSEWHERE)
    assert caught.value.reason is Reason.TOKEN_MISSING


def test_a_remote_peer_with_the_token_is_let_in() -> None:
    assert BearerAuth("s3cret").authenticate(RIGHT, ELSEWHERE).name == "token:1ec1c2"
    assert BearerAuth("s3cret").authenticate({"authorization": "bearer s3cret"}, ELSEWHERE)


def test_a_server_without_a_token_takes_no_remote_peer() -> None:
    with pytest.raises(Unauthenticated):
        BearerAuth(None).authenticate(RIGHT, ELSEWHERE)


def test_the_gateways_own_loopback_does_not_let_its_remote_clients_in() -> None:
    remote = {"x-llorch-client": "remote"}
    with pytest.raises(Unauthenticated):
        BearerAuth("s3cret").authenticate(remote, HERE)
    with pytest.raises(Unauthenticated):
        BearerAuth(None).authenticate(remote, HERE)
    assert BearerAuth("s3cret").authenticate(remote | RIGHT, HERE).name == "token:1ec1c2"
    assert BearerAuth("s3cret").authenticate({"x-llorch-client": "loopback"}, HERE) == Identity("localhost")


def test_saying_loopback_helps_no_remote_peer() -> None:
    with pytest.raises(Unauthenticated):
        BearerAuth("s3cret").authenticate({"x-llorch-client": "loopback"}, ELSEWHERE)


def test_without_the_bypass_loopback_needs_the_token_too() -> None:
    with pytest.raises(Unauthenticated):
        BearerAuth("s3cret", loopback_bypass=False).authenticate({}, HERE)


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.0.0.2:1", "localhost:1", "[::1]:1"])
def test_a_loopback_bind_needs_no_token(bind: str) -> None:
    refuse_open_bind(bind, None)


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "192.168.1.7:1", "gpu-box:1"])
def test_an_open_bind_needs_a_token(bind: str) -> None:
    refuse_open_bind(bind, "s3cret")
    with pytest.raises(FailedPrecondition, match=r"bind .*--token") as caught:
        refuse_open_bind(bind, None)
    assert caught.value.reason is Reason.TOKEN_MISSING


def test_keys_of_apps_are_known_by_their_looks_and_kept_as_hashes() -> None:
    key = new_app_key()
    assert is_app_key(key)
    assert key != new_app_key()
    assert len(key_hash(key)) == 64
    assert not is_app_key("s3cret")


def test_an_identity_may_call_what_is_listed_or_everything() -> None:
    assert Identity("localhost").may_call("/x.Y/Z")
    app = Identity("app:aider", app="aider", methods=frozenset({"/x.Y/Z"}))
    assert app.may_call("/x.Y/Z")
    assert not app.may_call("/x.Y/Other")
