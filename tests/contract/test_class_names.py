"""A class name means one thing within a service: a search for it, or a trace that names it, leads to one class."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[2] / "services"
PACKAGES = sorted(path.name for path in SERVICES.iterdir() if (path / "__init__.py").is_file())
SDK = SERVICES / "llorch" / "sdk"
"""A product of its own: programs know its classes by their names, such as FinishReason."""


def class_names(tree: ast.AST) -> Iterator[str]:
    """Of the classes of a module, private ones too, but none inside of a class or a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from class_names(node)


def sources_of(files: Iterable[Path]) -> dict[str, str]:
    sources = {str(path.relative_to(SERVICES)): path.read_text(encoding="utf-8") for path in sorted(files)}
    assert sources
    return sources


def repeated(sources: dict[str, str]) -> dict[str, list[str]]:
    """Class names that are defined more than once, and the files that do so."""
    files: dict[str, list[str]] = defaultdict(list)
    for file, source in sources.items():
        for name in class_names(ast.parse(source)):
            files[name].append(file)
    return {name: where for name, where in files.items() if len(where) > 1}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_class_name_is_given_once_within_a_service(package: str) -> None:
    assert repeated(sources_of(path for path in (SERVICES / package).rglob("*.py") if SDK not in path.parents)) == {}


def test_a_class_name_is_given_once_within_the_sdk() -> None:
    assert repeated(sources_of(SDK.rglob("*.py"))) == {}


def test_every_service_is_looked_at() -> None:
    assert PACKAGES == ["gatewayd", "llorch", "orchestratord", "pool_managerd", "worker_orcd"]


def test_a_repeated_name_is_found() -> None:
    nested = "class Other:\n    class _Lane: ...\n\ndef made():\n    class _Lane: ...\n"
    assert repeated({"one.py": "class _Lane: ...\n", "two.py": nested}) == {}
    guarded = "if True:\n    class _Lane: ...\n"
    assert repeated({"one.py": "class _Lane: ...\n", "two.py": guarded}) == {"_Lane": ["one.py", "two.py"]}
