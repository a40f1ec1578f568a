"""HTTP routes, read from the `google.api.http` annotations of the orchestrator's services."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from gatewayd.template import PathTemplate, parse_template
from llama_orch.v2 import http_options_pb2

WHOLE_BODY = "*"


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP method and path template, and the RPC that answers it.

    `body` names the field of the request that the HTTP body fills, `*` is the request itself, empty is no
    body. `response_body` names the field of the response that is the HTTP answer; empty is the response.
    """

    http_method: str
    template: PathTemplate
    rpc: MethodDescriptor
    body: str
    response_body: str
    success_status: int


def read_routes(services: Iterable[ServiceDescriptor]) -> tuple[Route, ...]:
    """All routes, in the order in which they are tried."""
    routes = [route for service in services for rpc in service.methods for route in _routes_of(rpc)]
    return tuple(sorted(routes, key=lambda route: route.template.specificity))


def _routes_of(rpc: MethodDescriptor) -> Iterator[Route]:
    options: Any = rpc.GetOptions()  # googleapis' stubs do not say that these are extensions of it
    if not options.HasExtension(annotations_pb2.http):
        return
    status = options.Extensions[http_options_pb2.http_success_status] or 200
    rule = options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        yield _route(rpc, binding, status)


def _route(rpc: MethodDescriptor, rule: http_pb2.HttpRule, status: int) -> Route:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise ValueError(f"{rpc.full_name} has an HTTP rule without a path")
    method, path = (rule.custom.kind, rule.custom.path) if kind == "custom" else (kind.upper(), getattr(rule, kind))
    return Route(method, parse_template(path), rpc, rule.body, rule.response_body, status)
