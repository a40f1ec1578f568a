import pytest

from llorch.auth import BearerAuth, Identity, is_app_key, is_forwarded, is_loopback, key_hash, new_app_key
from llorch.errors import Reason, Unauthenticated

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


def outcome(token: str | None, peer: str, metadata: dict[str, str], *, optional: bool = False) -> str:
    """The name of the caller, or the reason for its refusal."""
    try:
        return BearerAuth(token, optional=optional).authenticate(metadata, peer).name
    except Unauthenticated as error:
        return error.reason.value


LOCAL, BEARER = "localhost", "token:1ec1c2"
MISSING, INVALID = Reason.TOKEN_MISSING.value, Reason.TOKEN_INVALID.value
CLASSES = (None, "loopback", "remote", "LOOPBACK")
SHOWN = {"none": {}, "right": RIGHT, "wrong": WRONG}


def expected(*, token: bool, optional: bool, peer: str, shown: str, says: str | None) -> str:
    """The rules once more, by cases."""
    is_here = peer == HERE and says in (None, "loopback")
    if not token:
        return LOCAL if is_here else MISSING
    if shown == "none":
        return LOCAL if is_here and optional else MISSING
    return BEARER if shown == "right" else INVALID


@pytest.mark.req("GATE-4004")
@pytest.mark.parametrize("says", CLASSES)
@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("peer", [HERE, ELSEWHERE])
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("token", ["s3cret", None])
def test_who_is_let_in(token: str | None, optional: bool, peer: str, shown: str, says: str | None) -> None:
    metadata = SHOWN[shown] | ({"x-llorch-client": says} if says else {})
    wanted = expected(token=token is not None, optional=optional, peer=peer, shown=shown, says=says)
    assert outcome(token, peer, metadata, optional=optional) == wanted


def test_a_set_token_is_asked_for_on_loopback_too() -> None:
    assert outcome("s3cret", HERE, {}) == MISSING
    assert outcome("s3cret", HERE, {"x-llorch-client": "loopback"}) == MISSING
    assert outcome("s3cret", "unix:/run/x.sock", {}) == MISSING


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("metadata", [{"authorization": "Basic s3cret"}, {"authorization": "Bearer "}])
def test_what_is_no_bearer_token_is_none(metadata: dict[str, str], optional: bool) -> None:
    assert outcome("s3cret", ELSEWHERE, metadata, optional=optional) == MISSING


def test_the_scheme_is_known_whatever_its_case() -> None:
    assert outcome("s3cret", ELSEWHERE, {"authorization": "bearer s3cret"}) == BEARER


def test_an_empty_token_is_none() -> None:
    assert outcome("", HERE, {}) == LOCAL
    assert outcome("", ELSEWHERE, {"authorization": "Bearer "}) == MISSING


FORWARDING = ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded", "x-real-ip", "true-client-ip"]


@pytest.mark.parametrize("name", FORWARDING)
def test_what_a_proxy_forwards_is_not_of_this_machine(name: str) -> None:
    forwarded = {name: "192.0.2.7"}
    assert is_forwarded(forwarded)
    assert outcome(None, HERE, forwarded) == MISSING
    assert outcome("s3cret", HERE, forwarded, optional=True) == MISSING
    assert outcome("s3cret", HERE, forwarded | RIGHT) == BEARER


def test_usual_headers_are_of_no_proxy() -> None:
    assert not is_forwarded(("host", "user-agent", "accept", "authorization", "x-correlation-id", "x-llorch-client"))


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
