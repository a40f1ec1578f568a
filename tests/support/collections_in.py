"""How many things an object holds, whatever it is made of: for tests that nothing grows for ever."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None), Enum, type)


def sizes_in(root: object) -> Counter[str]:
    """By the path of each collection: how many elements it has. Those of all objects in one collection count together,
    under its path with `[]`, so that a collection inside of another one is seen too.
    """
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    stack: list[tuple[str, object]] = [("", root)]
    while stack:
        path, thing = stack.pop()
        if isinstance(thing, _PLAIN) or id(thing) in seen or callable(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, Mapping):
            sizes[path] += len(thing)
            stack.extend((f"{path}[]", value) for value in thing.values())
        elif isinstance(thing, AbstractSet | list | tuple | deque):
            if not isinstance(thing, tuple):  # of a tuple's own length there is nothing to say: it never changes
                sizes[path] += len(thing)
            stack.extend((f"{path}[]", value) for value in thing)
        else:
            stack.extend((f"{path}.{name}" if path else name, value) for name, value in _attributes(thing))
    return sizes


def grown(before: Mapping[str, int], after: Mapping[str, int], bounds: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What is larger than before, by path, with both sizes: without what keeps within a bound of its own, and without
    what is in the elements of that.
    """
    return {
        path: (before.get(path, 0), size)
        for path, size in after.items()
        if size > max(before.get(path, 0), bounds.get(path, 0)) and not any(path.startswith(f"{it}[]") for it in bounds)
    }


def _attributes(thing: Any) -> Iterator[tuple[str, object]]:
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    names.extend(getattr(thing, "__dict__", ()))
    for name in names:
        if hasattr(thing, name):
            yield name, getattr(thing, name)
