import pytest

from llorch.auth import BearerAuth, Identity, key_hash, new_app_key
from llorch.errors import Reason, Unauthenticated
from orchestratord.api.app_keys import METHODS_OF_APPS, AppAuth
from orchestratord.core.facts.apps import App, Apps

HERE = "ipv4:127.0.0.1:5000"
ELSEWHERE = "ipv4:192.168.1.7:5000"
KEY = new_app_key()


def auth(token: str | None = "s3cret") -> AppAuth:  # noqa: S107  # a test's
    apps = Apps()
    apps.put(App("aider", key_hash(KEY)))
    return AppAuth(apps.by_key_hash, BearerAuth(token))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("peer", [HERE, ELSEWHERE])
def test_a_key_makes_an_app_of_its_bearer_wherever_it_is(peer: str) -> None:
    for token in ("s3cret", None):
        identity = auth(token).authenticate(bearer(KEY), peer)
        assert identity == Identity("app:aider", app="aider", methods=METHODS_OF_APPS)


def test_callers_without_a_key_of_an_app_are_who_they_were() -> None:
    assert auth(None).authenticate({}, HERE) == Identity("localhost")
    assert auth().authenticate(bearer("s3cret"), ELSEWHERE).app == ""


@pytest.mark.parametrize("peer", [HERE, ELSEWHERE])
@pytest.mark.parametrize("token", ["s3cret", None])
def test_a_key_of_no_app_is_refused_also_on_this_machine(peer: str, token: str | None) -> None:
    with pytest.raises(Unauthenticated) as refused:
        auth(token).authenticate(bearer(new_app_key()), peer)
    assert refused.value.reason in (Reason.TOKEN_INVALID, Reason.TOKEN_MISSING)


def test_the_operators_token_may_look_like_a_key() -> None:
    token = new_app_key()
    assert auth(token).authenticate(bearer(token), HERE).may_call("/llama_orch.v2.AppService/CreateApp")


def test_apps_may_not_manage_apps_models_rules_or_nodes() -> None:
    services = {method.split("/")[1].rpartition(".")[2] for method in METHODS_OF_APPS}
    of_apps = {"TaskService", "SessionService", "CatalogService", "PlacementService", "MetaService"}
    assert services == of_apps | {"DeliveryService"}
    assert "/llama_orch.v2.DeliveryService/Deliver" not in METHODS_OF_APPS, "events of other apps would come by it"
    assert not [method for method in METHODS_OF_APPS if "Register" in method or "SetAssignment" in method]


def test_a_call_that_an_app_may_not_make_is_refused_with_what_would_do_here() -> None:
    with_token = auth("s3cret").authenticate(bearer(KEY), HERE)
    without = auth(None).authenticate(bearer(KEY), HERE)
    assert with_token.otherwise.startswith("show the token of this server's operator")
    assert without.otherwise.startswith("leave the key out: this server has no token")
