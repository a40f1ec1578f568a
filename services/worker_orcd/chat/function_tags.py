"""Tool calls in tags, as Qwen3-Coder writes them: `<function=name><parameter=key>value</parameter></function>`. Pure.

Values are texts; what they are otherwise, the tool's schema says.
"""

import re
from collections.abc import Mapping
from typing import Any

from worker_orcd.chat.call_json import NotJson, arguments_text, next_value

OPENING = "<function="
_HEAD = re.compile(r"<function=\s*([A-Za-z0-9_.-]{1,64})\s*>")
_MOST_OF_HEAD = 128
_PARAMETER = re.compile(r"\s*<parameter=\s*([^<>\s]{1,256})\s*>")
_VALUE_END = re.compile(r"</parameter>(?=\s*(?:<parameter=|</function>))")
"""The same within a value, such as a program about tags, is followed by something else."""
_CLOSE = re.compile(r"\s*</function>")
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}

Texts = tuple[tuple[str, str], ...]


def head_is_right(text: str, begin: int) -> bool:
    """Whether the opening tag names a function, as far as it is there."""
    end = text.find(">", begin)
    return _HEAD.match(text, begin) is not None if end >= 0 else len(text) - begin < _MOST_OF_HEAD


def function_at(text: str, begin: int) -> tuple[str, Texts, int] | None:
    """Name, values by key in order, and where it ends; None if nothing complete begins there."""
    head = _HEAD.match(text, begin)
    if head is None:
        return None
    values: list[tuple[str, str]] = []
    at = head.end()
    while parameter := _PARAMETER.match(text, at):
        end = _VALUE_END.search(text, parameter.end())
        if end is None:
            return None
        values.append((parameter.group(1), _unwrapped(text[parameter.end() : end.start()])))
        at = end.end()
    close = _CLOSE.match(text, at)
    return (head.group(1), tuple(values), close.end()) if close else None


def typed_arguments(texts: Texts, parameters: Mapping[str, Any]) -> str:
    """JSON text of an object. `parameters` is the tool's schema; where it is silent, what is JSON is taken for it."""
    properties = parameters.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    return arguments_text({key: _typed(text, known.get(key)) for key, text in texts}) or "{}"


def _unwrapped(text: str) -> str:
    """Without the ends of line that stand around a value."""
    return text.removeprefix("\n").removesuffix("\n")


def _typed(text: str, schema: object) -> object:
    wanted = _wanted(schema)
    if wanted == {"string"}:
        return text
    source = _PYTHON_WORDS.get(text.strip(), text)
    try:
        found = next_value(source, 0)
    except NotJson:
        return text
    if found is None or source[found.end :].strip():
        return text
    value = found.content
    if not wanted:
        return value
    fits = any(isinstance(value, _TYPES.get(name, ())) for name in wanted)
    return value if fits and (not isinstance(value, bool) or "boolean" in wanted) else text


def _wanted(schema: object) -> set[str]:
    """The names of the types that a value may have; none where the schema does not say, or says it elsewhere."""
    if not isinstance(schema, Mapping) or "$ref" in schema:
        return set()
    told = schema.get("type")
    if isinstance(told, str):
        return {told}
    if isinstance(told, list):
        return {name for name in told if isinstance(name, str)}
    listed = schema.get("enum")
    if isinstance(listed, list) and listed and all(isinstance(value, str) for value in listed):
        return {"string"}
    parts = schema.get("anyOf", schema.get("oneOf"))
    found = [_wanted(part) for part in parts] if isinstance(parts, list) else []
    return set().union(*found) if all(found) else set()
