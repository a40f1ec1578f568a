"""Finds the route of a request, or names the route or the methods that come close."""

import difflib
import re
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from gatewayd.template import PathTemplate
from llorch.errors import InvalidArgument, NotFound, Reason

_VERSION = re.compile(r"/v\d+(?=/)")


class HasPath(Protocol):
    """What every route has, whatever answers it."""

    @property
    def http_method(self) -> str: ...

    @property
    def template(self) -> PathTemplate: ...


R = TypeVar("R", bound=HasPath)


class MethodNotAllowed(InvalidArgument):
    """The path exists, with other methods."""

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(set(allowed)))
        super().__init__(Reason.METHOD_NOT_ALLOWED, f"{path} does not take {method}; it takes {self.allowed}")


def _nearest(path: str, known: Iterable[str]) -> str | None:
    """By what stands behind the version: what one version lacks, the other may have. Of two alike, that of the same."""
    version, rest = _apart(path)
    by_rest: dict[str, str] = {}
    for text in known:
        known_version, known_rest = _apart(text)
        if known_rest not in by_rest or known_version == version:
            by_rest[known_rest] = text
    near = difflib.get_close_matches(rest, by_rest, n=1, cutoff=0.4)
    return by_rest[near[0]] if near else None


def _apart(path: str) -> tuple[str, str]:
    """Its version, and what stands behind that."""
    begin = _VERSION.match(path)
    return ("", path) if begin is None else (begin[0], path[begin.end() :])


class RouteTable(Generic[R]):
    """Routes are tried in the order given. `elsewhere` are paths that another table has: they are only named."""

    def __init__(self, routes: Iterable[R], elsewhere: Iterable[str] = ()) -> None:
        self._routes = tuple(routes)
        self._elsewhere = tuple(elsewhere)
        self._by_method: dict[str, list[R]] = {}
        for route in self._routes:
            self._by_method.setdefault(route.http_method, []).append(route)

    def find(self, method: str, raw_path: str) -> tuple[R, dict[str, str]]:
        """The route, and what its path variables stand for. Raises NotFound and MethodNotAllowed."""
        for route in self._by_method.get(method, ()):
            variables = route.template.match(raw_path)
            if variables is not None:
                return route, variables
        allowed = [route.http_method for route in self._routes if route.template.pattern.fullmatch(raw_path)]
        if allowed:
            raise MethodNotAllowed(method, raw_path, allowed)
        raise self._not_found(raw_path)

    def _not_found(self, raw_path: str) -> NotFound:
        near = _nearest(raw_path, [*self._elsewhere, *(route.template.text for route in self._routes)])
        hint = f"; did you mean {near}?" if near else "; paths begin with /v2/, those of OpenAI's API with /v1/"
        shown = raw_path if len(raw_path) <= 200 else f"{raw_path[:200]}…"
        return NotFound(Reason.ROUTE_NOT_FOUND, f"no route has the path {shown}{hint}")
