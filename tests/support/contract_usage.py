"""Which parts of the contract `services/` uses, found by name in its syntax trees.

A name counts only in a module that can have the message at hand: one that names the message, a message that it is part
of, or an RPC that carries it.
"""

import ast
import functools
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, MethodDescriptor

import llama_orch.v2

SERVICES = Path(__file__).resolve().parents[2] / "services"

FOR_PEOPLE = frozenset(
    {
        "PoolManagerService.GetState",
        "PoolManagerService.WatchState",
        "WorkerService.Execute",
        "WorkerService.GetInfo",
    }
)
"""RPCs between daemons that an operator calls with a gRPC tool; no daemon does."""
HANDED_BACK = frozenset({"LogEntry", "PositionLogprobs", "TokenLogprob"})
"""Messages of a worker that the orchestrator hands to another worker whole, without a look at all of their fields."""

_WRITES = frozenset({"add", "append", "extend", "CopyFrom", "MergeFrom", "FromDatetime", "SetInParent", "update"})
_LONGEST_NAME = 100  # characters, of an annotation in quotes
_CLIENTS = frozenset({"llorch", "gatewayd"})


@dataclass(slots=True)
class Module:
    """What a module uses, by name. `named`: every name in it, those of annotations in quotes included."""

    service: str
    named: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


@functools.cache
def unused_fields() -> set[str]:
    """`Message.field` of every field that lacks its writer or its reader among the services.

    Where a client of the public API is the other side, one of the two is enough.
    """
    return {f"{use.message.name}.{name}" for use in _uses() for name in use.message.fields_by_name if not use.has(name)}


@functools.cache
def unused_values() -> set[str]:
    """Enum values that no module names, neither as the contract does nor as the enum of the same name does."""
    named = functools.reduce(set.union, (module.read for module in _modules()), set[str]())
    return {
        value.name
        for enum in _enums()
        for value in enum.values
        if value.number and value.name not in named and value.name.removeprefix(_prefix(enum)) not in named
    }


def rpcs_without_caller() -> set[str]:
    """RPCs between daemons that no daemon calls, as `Service.Method`."""
    called = functools.reduce(set.union, (module.read for module in _modules()), set[str]())
    return {_full(rpc) for rpc in _rpcs() if not _is_public(rpc) and rpc.name not in called}


@dataclass(frozen=True, slots=True)
class _Use:
    """`to` and `back`: the message goes in requests and in answers of the public API; else between daemons alone."""

    message: Descriptor
    to: bool
    back: bool
    modules: list[Module]

    def has(self, name: str) -> bool:
        readers = {module.service for module in self.modules if name in module.read}
        writers = {module.service for module in self.modules if name in module.written}
        if self.message.fields_by_name[name].message_type is not None:
            writers |= readers  # `fill(event.tokens)` names it as a reader does
        if self.to and self.back:
            return bool((readers | writers) - _CLIENTS)
        if self.to:
            return bool(readers - _CLIENTS)
        if self.back or self.message.name in HANDED_BACK:
            return bool(writers - _CLIENTS)
        return any(reader != writer for reader in readers for writer in writers)


def _uses() -> Iterator[_Use]:
    rpcs = list(_rpcs())
    public = [rpc for rpc in rpcs if _is_public(rpc) or _full(rpc) in FOR_PEOPLE]
    to, back = _reachable(rpc.input_type for rpc in public), _reachable(rpc.output_type for rpc in public)
    carriers = _carriers(rpcs)
    for message in _messages():
        name = message.full_name
        modules = [module for module in _modules() if carriers[name] & module.named]
        yield _Use(message, name in to, name in back, modules)


def _carriers(rpcs: Iterable[MethodDescriptor]) -> dict[str, set[str]]:
    """By message: the names of the messages and RPCs that it comes with."""
    found = defaultdict[str, set[str]](set)
    for message in _messages():
        for inner in _reachable([message]):
            found[inner].add(message.name)
    for rpc in rpcs:
        for inner in _reachable([rpc.input_type, rpc.output_type]):
            found[inner].add(rpc.name)
    return found


def _reachable(roots: Iterable[Descriptor]) -> set[str]:
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found.add(message.full_name)
            waiting.extend(one.message_type for one in message.fields if one.message_type is not None)
    return found


@functools.cache
def _modules() -> tuple[Module, ...]:
    paths = sorted(set(SERVICES.rglob("*.py")) - {SERVICES / "llorch" / "errors.py"})  # it lists all reasons
    return tuple(_module(path.relative_to(SERVICES).parts[0], ast.parse(path.read_text())) for path in paths)


def _module(service: str, tree: ast.Module) -> Module:
    found = Module(service)
    definitions = set(_definitions(tree))
    for node in ast.walk(tree):
        if node not in definitions:
            _note_names(found, node)
            found.written.update(_written(node))
    return found


def _note_names(found: Module, node: ast.AST) -> None:
    match node:
        case ast.Name(id=name):
            found.named.add(name)
        case ast.Attribute(attr=name, ctx=ast.Load()):
            found.named.add(name)
            found.read.add(name)
        case ast.Constant(value=str() as text) if len(text) < _LONGEST_NAME:
            found.named.update(re.findall(r"\w+", text))
            if text.isidentifier():  # a name for getattr or HasField
                found.read.add(text)


def _written(node: ast.AST) -> Iterable[str]:
    match node:
        case ast.Attribute(ctx=ast.Store()):
            return _chain(node)
        case ast.Subscript(value=ast.Attribute() as of, ctx=ast.Store()):
            return _chain(of)
        case ast.Call(func=ast.Attribute(value=ast.Attribute() as of, attr=call)) if call in _WRITES:
            return _chain(of)
        case ast.keyword(arg=str() as name):
            return [name]
        case ast.Constant(value=str() as text) if text.isidentifier():  # a key of what is handed over with `**`
            return [text]
    return ()


def _definitions(tree: ast.Module) -> Iterator[ast.Constant]:
    """`RECOVERING = "RECOVERING"` defines a name, and is no use of it."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str() as text) as value):
                if name == text:
                    yield value


def _chain(node: ast.expr) -> Iterator[str]:
    """`report.heartbeat.snapshot` writes `heartbeat` too."""
    while isinstance(node, ast.Attribute):
        yield node.attr
        node = node.value


@functools.cache
def _files() -> tuple[FileDescriptor, ...]:
    names = (module.name for module in pkgutil.iter_modules(llama_orch.v2.__path__) if module.name.endswith("_pb2"))
    return tuple(importlib.import_module(f"llama_orch.v2.{name}").DESCRIPTOR for name in names)


def _messages() -> Iterator[Descriptor]:
    waiting = [message for file in _files() for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        if not message.GetOptions().map_entry:
            yield message
            waiting.extend(message.nested_types)


def _enums() -> Iterator[EnumDescriptor]:
    for file in _files():
        yield from file.enum_types_by_name.values()
    for message in _messages():
        yield from message.enum_types


def _rpcs() -> Iterator[MethodDescriptor]:
    return (rpc for file in _files() for service in file.services_by_name.values() for rpc in service.methods)


def _is_public(rpc: MethodDescriptor) -> bool:
    options: Any = rpc.GetOptions()  # googleapis' stubs do not say that this is an extension of it
    return bool(options.HasExtension(annotations_pb2.http))


def _full(rpc: MethodDescriptor) -> str:
    return f"{rpc.containing_service.name}.{rpc.name}"


def _prefix(enum: EnumDescriptor) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
