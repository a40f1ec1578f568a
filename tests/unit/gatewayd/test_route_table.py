"""What a client is told whose path has no route."""

from dataclasses import dataclass
from typing import Any

import pytest

from gatewayd.app import orchestrator_services
from gatewayd.route_table import RouteTable
from gatewayd.routes import read_routes
from gatewayd.template import PathTemplate, parse_template
from llorch.errors import NotFound

CONTRACT = read_routes(orchestrator_services())


@dataclass(frozen=True)
class OpenAi:
    http_method: str
    template: PathTemplate


def refusal(table: RouteTable[Any], path: str) -> str:
    with pytest.raises(NotFound) as refused:
        table.find("POST", path)
    return refused.value.message


@pytest.mark.parametrize(
    ("path", "near"),
    [("/embed", "/v2/embed"), ("/v2/taskz", "/v2/tasks"), ("/v3/tasks", "/v2/tasks"), ("/v2/embeddings", "/v2/embed")],
)
def test_the_nearest_path_is_offered_whatever_its_version(path: str, near: str) -> None:
    assert refusal(RouteTable(CONTRACT), path) == f"no route has the path {path}; did you mean {near}?"


@pytest.mark.parametrize(
    ("path", "near"),
    [("/v1/embeddings", "/v2/embed"), ("/v1/rerank", "/v2/rerank"), ("/v1/completion", "/v1/completions")],
)
def test_what_one_table_lacks_another_may_have(path: str, near: str) -> None:
    routes = [OpenAi("POST", parse_template(text)) for text in ("/v1/completions", "/v1/chat/completions")]
    table = RouteTable(routes, [route.template.text for route in CONTRACT])
    assert refusal(table, path) == f"no route has the path {path}; did you mean {near}?"


def test_of_two_alike_the_one_of_the_same_version_is_offered() -> None:
    table = RouteTable([OpenAi("GET", parse_template("/v1/models"))], ["/v2/models"])
    assert refusal(table, "/v1/modelz").endswith("did you mean /v1/models?")
