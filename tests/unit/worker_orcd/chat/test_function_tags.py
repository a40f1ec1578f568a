import json

import pytest

from worker_orcd.chat.function_tags import typed_arguments

TYPES = {
    "text": {"type": "string"},
    "word": {"enum": ["a", "1"]},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "list": {"type": "array"},
    "map": {"type": "object"},
    "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "any": {},
    "model": {"anyOf": [{"$ref": "#/$defs/M"}, {"type": "null"}]},
    "named": {"$ref": "#/$defs/Text"},
    "choice": {"oneOf": [{"type": "string"}, {"type": "null"}]},
    "broken": {"anyOf": 5},
}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "12", "12"),
        ("text", "  two\nlines ", "  two\nlines "),
        ("word", "1", "1"),
        ("whole", " 12 ", 12),
        ("whole", "twelve", "twelve"),
        ("whole", "true", "true"),
        ("number", "1.5", 1.5),
        ("number", "2", 2),
        ("flag", "true", True),
        ("flag", "False", False),
        ("list", '[1, "a"]', [1, "a"]),
        ("list", "[1, ", "[1, "),
        ("map", '{"a": {"b": null}}', {"a": {"b": None}}),
        ("map", '{"a": 1} and more', '{"a": 1} and more'),
        ("maybe", "null", None),
        ("maybe", "None", None),
        ("maybe", "12", "12"),
        ("any", "12", 12),
        ("any", "a word", "a word"),
        ("model", '{"x": 1}', {"x": 1}),
        ("model", "null", None),
        ("named", "a text", "a text"),
        ("choice", "123", "123"),
        ("broken", "a", "a"),
        ("unknown", "[1]", [1]),
        ("unknown", "", ""),
    ],
)
def test_a_value_is_what_the_schema_says_or_a_text(key: str, text: str, value: object) -> None:
    found = json.loads(typed_arguments(((key, text),), {"properties": TYPES}))[key]
    assert (found, type(found)) == (value, type(value))
