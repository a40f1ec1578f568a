"""Routes are read from the contract; nothing here is a list of our own but the paths that are published."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.app import orchestrator_services
from gatewayd.routes import read_routes
from gatewayd.template import parse_template
from llama_orch.v2 import worker_service_pb2
from llorch.errors import InvalidArgument

ROUTES = read_routes(orchestrator_services())


@pytest.mark.req("GATE-4001")
def test_every_rpc_of_the_orchestrator_has_a_route() -> None:
    routed = {route.rpc.full_name for route in ROUTES}
    assert routed == {rpc.full_name for service in orchestrator_services() for rpc in service.methods}


def test_no_two_routes_are_the_same() -> None:
    patterns = [(route.http_method, route.template.pattern) for route in ROUTES]
    assert len(set(patterns)) == len(patterns)


def test_services_of_other_daemons_have_no_routes() -> None:
    assert read_routes([worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"]]) == ()


def test_variables_and_bodies_name_fields_of_the_request() -> None:
    for route in ROUTES:
        for path in (*route.template.fields, *([route.body] if route.body not in ("", "*") else [])):
            message: Any = route.rpc.input_type
            for name in path.split("."):
                message = message.fields_by_name[name].message_type


@pytest.mark.parametrize(
    "published",
    [
        "POST /v2/tasks",
        "GET /v2/tasks/{task_id}",
        "GET /v2/tasks/{task_id}/events",
        "POST /v2/tasks/{task_id}/cancel",
        "GET /v2/sessions/{session_id}",
        "DELETE /v2/sessions/{session_id}",
        "GET /v2/meta/capabilities",
        "GET /v2/state",
        "GET /v2/pools/{pool_id}/health",
        "POST /v2/pools/{pool_id}/drain",
        "POST /v2/pools/{pool_id}/reload",
        "POST /v2/pools/{pool_id}/purge",
        "POST /v2/workers/start",
        "POST /v2/workers/stop",
        "POST /v2/catalog/models",
        "GET /v2/catalog/models",
        "GET /v2/catalog/models/{model}",
        "POST /v2/catalog/models/{model}/verify",
        "POST /v2/catalog/models/{model}/state",
        "GET /v2/catalog/availability",
        "GET /v2/nodes",
        "DELETE /v2/nodes/{node_id}",
        "GET /v2/assignments",
        "PUT /v2/assignments/{assignment.assignment_id}",
        "DELETE /v2/assignments/{assignment_id}",
        "POST /v2/placement/explain",
    ],
)
def test_the_published_paths_are_there(published: str) -> None:
    assert published in {f"{route.http_method} {route.template.text}" for route in ROUTES}


@pytest.mark.parametrize(
    ("template", "path", "variables"),
    [
        ("/v2/tasks", "/v2/tasks", {}),
        ("/v2/tasks", "/v2/tasks/", None),
        ("/v2/tasks/{id}", "/v2/tasks/", None),
        ("/v2/tasks/{id}", "/v2/tasks/a/b", None),
        ("/v2/tasks/{id}", "/v2/tasks/a%2Fb%20c", {"id": "a/b c"}),
        ("/v2/{a.b}/x/{c}", "/v2/1/x/2", {"a.b": "1", "c": "2"}),
        ("/v1/{name=shelves/*}/books", "/v1/shelves/3/books", {"name": "shelves/3"}),
        ("/v1/{name=shelves/*}/books", "/v1/racks/3/books", None),
        ("/v1/{path=**}", "/v1/a/b/c", {"path": "a/b/c"}),
        ("/v1/*/x", "/v1/anything/x", {}),
        ("/v1/{id}:cancel", "/v1/7:cancel", {"id": "7"}),
        ("/v1/{id}:cancel", "/v1/7", None),
        ("/v1/a.c", "/v1/abc", None),
    ],
)
def test_a_template_matches_the_raw_path(template: str, path: str, variables: dict[str, str] | None) -> None:
    assert parse_template(template).match(path) == variables


def test_a_literal_wins_over_a_variable() -> None:
    texts = ["/v2/**", "/v2/{id}/x", "/v2/{id}", "/v2/join", "/v2/join/x"]
    ranked = sorted((parse_template(text) for text in texts), key=lambda template: template.specificity)
    assert [template.text for template in ranked] == [
        "/v2/join",
        "/v2/join/x",
        "/v2/{id}",
        "/v2/{id}/x",
        "/v2/**",
    ]


def test_escapes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="UTF-8"):
        parse_template("/v2/{id}").match("/v2/%ff")


@pytest.mark.parametrize("text", ["v2/tasks", "/v2/{}", "/v2/{a", "/v2/{a}}", "/v2/{a={b}}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a path template"):
        parse_template(text)


@given(st.text(alphabet="/%{}=*:.ab01", max_size=30))
def test_any_path_is_matched_or_not(path: str) -> None:
    try:
        parse_template("/{a}/{b=**}:x").match(f"/{path}")
    except InvalidArgument:
        assert "%" in path
