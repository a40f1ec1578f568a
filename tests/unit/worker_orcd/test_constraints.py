"""Grammars and schemas over a vocabulary of single bytes, without a model."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llorch.errors import InvalidArgument, Reason
from support.example_count import examples
from worker_orcd.constraint.gbnf import MAX_RULES, lark_from_gbnf
from worker_orcd.constraint.gbnf_tokens import GbnfError
from worker_orcd.constraint.json_schema import FORMATS, json_nesting
from worker_orcd.engines.llama_cpp.constraints import Constraint, ConstraintCompiler, ConstraintFailed
from worker_orcd.run_spec import ConstraintKind, OutputConstraint

END = 256
PIECES = [*(bytes([byte]) for byte in range(256)), "", "true", "ab", '{"', ""]
CONTROL = len(PIECES) - 1
MODEL: Any = SimpleNamespace(pieces=PIECES, ends_text=frozenset({END}), vocabulary_size=len(PIECES))
COMPILER = ConstraintCompiler(MODEL)


def compiled(text: str, kind: ConstraintKind = ConstraintKind.GRAMMAR) -> Constraint:
    return COMPILER.compile(OutputConstraint(kind, text))


def schema(value: object) -> Constraint:
    return compiled(json.dumps(value), ConstraintKind.JSON_SCHEMA)


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether this can be the whole output."""
    at = constraint.after(())
    for byte in text.encode():
        if not at.allows(byte):
            return False
        at.accept(byte)
    return at.allows(END)


@pytest.mark.parametrize(
    ("grammar", "said", "unsaid"),
    [
        ('root ::= "yes" | "no"', ["yes", "no"], ["", "y", "yesno"]),
        ('root ::= word "x"\nword ::= [a-z]+', ["ax", "abxcx"], ["x", "ab"]),
        ('root ::= ("ab" | "abc") "cd"', ["abcd", "abccd"], ["abc"]),
        ('root ::= "a"{2,3} "b"{2} "c"{1,}', ["aabbc", "aaabbcc"], ["abbc", "aaaabbc", "aabb"]),
        ("root ::= [^a-c\\n] .", ["dé", "-\n"], ["ab", "\nx", "d"]),
        ('root ::= [a\\-c\\]"-] "\\x41\\u00e9\\U0001F600\\t\\"\\\\"', ['-Aé😀\t"\\', ']Aé😀\t"\\'], ['bAé😀\t"\\']),
        ('root ::= ( "a" # why\n | "b"\n)* "."\n# the end', ["abba.", "."], ["ab", ""]),
        ('root ::= "" | "(" root ")"', ["", "(())"], ["(", "())"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a", "ab"]),
        ('root ::= "é"', ["é"], ["è", "e"]),
        ('root ::= a? b-2*\n\na ::= "a"\nb-2 ::= "b"', ["", "abb"], ["ba"]),
        ('root ::=\n  "a"\n  | "b"', ["a", "b"], ["ab"]),
    ],
)
def test_a_grammar_accepts_what_it_says(grammar: str, said: list[str], unsaid: list[str]) -> None:
    constraint = compiled(grammar)
    assert [text for text in said if not accepts(constraint, text)] == []
    assert [text for text in unsaid if accepts(constraint, text)] == []


patterns = st.recursive(
    st.sampled_from(["a", "b", "ab", "[ab]", "[^a]"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "{2}"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=examples(150), deadline=None)
@given(patterns, st.lists(st.text("abc", max_size=6), min_size=8, max_size=8))
def test_a_grammar_agrees_with_the_same_regular_expression(pattern: str, texts: list[str]) -> None:
    grammar = re.sub(r"\[.*?\]|[abc]+", lambda found: found[0] if found[0][0] == "[" else f'"{found[0]}"', pattern)
    constraint = compiled(f"root ::= {grammar}")
    for text in texts:
        assert accepts(constraint, text) == bool(re.fullmatch(pattern, text)), (grammar, text)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "there is no rule root"),
        ('rot ::= "a"', "there is no rule root"),
        ("root ::= missing", "line 1: there is no rule missing"),
        ('root ::= "a"\nroot ::= "b"', "line 2: this rule is there already"),
        ('root ::= ("a"', "line 1: a group is not closed"),
        ('root ::= "a")', "line 1: there is no group to close"),
        ('"a"', "line 1: a rule begins with"),
        ('root ::= "a', "line 1: '\"a' is not understood"),
        ("root ::= \n\n  §", "line 3: '§' is not understood"),
        ("root ::= [z-a]", "line 1: a range in [z-a] ends before it begins"),
        ("root ::= []", "line 1: [] has no characters"),
        ('root ::= "\\q"', "line 1: the escape \\q is not known"),
        ('root ::= "\\u12"', "line 1: an escape needs 4"),
        ('root ::= "\\uD800"', "line 1: D800 is not a character"),
        ("root ::= *", "line 1: there is nothing before *"),
        ('root ::= "a"{2001}', "line 1: {2001} is more often than 2000"),
        ("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "nested more than 200 deep"),
        ("root ::= " + '("a")' * (MAX_RULES + 1), "more than 1000 rules and groups"),
    ],
)
def test_what_is_no_grammar_is_told_with_its_line(grammar: str, why: str) -> None:
    with pytest.raises(GbnfError) as refused:
        lark_from_gbnf(grammar)
    assert why in str(refused.value)


@settings(max_examples=examples(300), deadline=None)
@given(st.text('ab"[]()|*+?{}\\:= \n#.,-^0123root', max_size=60))
def test_no_text_breaks_the_translation(text: str) -> None:
    for grammar in (text, f"root ::= {text}"):
        try:
            compiled(grammar)
        except InvalidArgument as error:
            assert error.reason is Reason.INVALID_GRAMMAR  # noqa: PT017


def test_deep_groups_are_fine_up_to_the_limit() -> None:
    assert accepts(compiled("root ::= " + "(" * 200 + '"a"' + ")" * 200), "a")


def test_the_quick_check_and_the_full_one_agree() -> None:
    constraint = compiled('root ::= "{" "\\"" ("true" | [a-c]+) "}"?')
    for token_id in (*b'{"', 257, *b"}"):
        allowed = set(constraint.allowed().tolist())
        assert allowed == {other for other in range(len(PIECES)) if constraint.allows(other)}
        assert token_id in allowed
        constraint.accept(token_id)
    assert constraint.complete
    assert constraint.allowed().tolist() == [END]


def test_a_control_token_is_never_text() -> None:
    constraint = compiled("root ::= .*")
    assert not constraint.allows(CONTROL)
    assert CONTROL not in constraint.allowed()


def test_a_token_that_is_not_allowed_does_no_harm() -> None:
    constraint = compiled('root ::= "ab"')
    with pytest.raises(ConstraintFailed):
        constraint.accept(ord("x"))
    with pytest.raises(ConstraintFailed):
        constraint.allows(ord("a"))
    assert not constraint.complete


def test_it_is_brought_to_where_an_output_left_it() -> None:
    constraint = compiled('root ::= "abc" | "abd"')
    later = constraint.after(b"ab")
    assert set(later.allowed().tolist()) == set(b"cd")
    assert constraint.allows(ord("a"))
    with pytest.raises(InvalidArgument, match="prefix"):
        constraint.after(b"ac")


def test_a_schema_accepts_what_it_says() -> None:
    person = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert accepts(schema(person), '{"a": 1}')
    assert accepts(schema(person), '{"a":12}')
    assert not accepts(schema(person), '{"b": 1}')
    assert accepts(schema({"oneOf": [{"type": "string"}, {"type": "boolean"}]}), "true")
    assert accepts(schema({"type": "string", "pattern": "^a+$"}), '"aa"')


def test_white_space_between_tokens_of_json_is_bounded() -> None:
    value = {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}
    for text in ('{"a":[]}', '{ "a": [ 1, 2 ] }', json.dumps({"a": [1, {"b": []}]}, indent=4), '{\n\t"a": []\n}'):
        assert accepts(schema(value), text), text
    for text in ('{\n\n"a":[]}', "{" + " " * 2 + '"a":[]}', "{\n" + " " * 41 + '"a":[]}', '{"a":[]}\n'):
        assert not accepts(schema(value), text), text


def test_an_unknown_format_is_an_annotation_and_a_known_one_is_kept_to() -> None:
    phone = {"type": "string", "format": "phone", "maxLength": 2}
    assert accepts(schema({"properties": {"format": phone}, "required": ["format"]}), '{"format": "12"}')
    assert not accepts(schema({"properties": {"format": phone}, "required": ["format"]}), '{"format": "123"}')
    assert accepts(schema({"const": {"format": "phone"}}), '{"format": "phone"}')
    assert accepts(schema({"$ref": "#/elsewhere", "elsewhere": phone}), '"12"')
    assert not accepts(schema({"type": "string", "format": "date"}), '"12"')


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_matcher_keeps_to_the_formats_that_it_is_given(name: str) -> None:
    assert not accepts(schema({"type": "string", "format": name}), '"*"')


@pytest.mark.parametrize("other", [["email"], {}, 5, None])
def test_a_format_that_is_no_text_is_refused_by_the_matcher(other: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        schema({"type": "string", "format": other})
    assert refused.value.reason is Reason.INVALID_GRAMMAR


def test_one_of_behind_a_reference_by_name_is_looked_at_too() -> None:
    branches = [{"type": "string"}, {"type": "string", "minLength": 1}]
    with pytest.raises(InvalidArgument, match="may hold at once"):
        schema({"$id": "http://x/y", "$ref": "http://x/y#/foo", "foo": {"oneOf": branches}})


def test_one_of_is_exactly_one_or_refused() -> None:
    pets = [
        {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in ("cat", "dog")
    ]
    listed = {"type": "array", "items": {"oneOf": [{"$ref": "#/$defs/0"}, {"$ref": "#/$defs/1"}]}}
    constraint = schema({**listed, "$defs": {str(number): pet for number, pet in enumerate(pets)}})
    assert accepts(constraint, '[{"kind": "cat"}, {"kind": "dog"}]')
    assert not accepts(constraint, '[{"kind": "cow"}]')
    even_or_third = {"items": {"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}]}}
    with pytest.raises(InvalidArgument, match="#/items/oneOf: branches 0 and 1 may hold at once"):
        schema(even_or_third)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "has to be a JSON object"),
        ("true", "has to be a JSON object"),
        ('{"maximum": Infinity}', "Infinity is no JSON value"),
        ('{"items":' * 201 + "{}" + "}" * 201, "is nested 202 deep; 200 are allowed"),
        ('{"a":' * 13_000, "is nested 13000 deep"),
        (json.dumps({"x" * 70_000: 1}), "has 70007 bytes; 65536 are allowed"),
        (json.dumps({f"a{n}": {"$ref": f"#/a{n + 1}"} for n in range(501)}), "has 501 references; 500 are allowed"),
        (json.dumps({"not": {"type": "string"}}), '"not"'),
        (json.dumps({"type": "string", "pattern": "(?=a)b"}), "look-around"),
        (json.dumps({"$ref": "#"}), "no output can satisfy it"),
    ],
)
def test_a_schema_that_can_not_be_followed_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        compiled(text, ConstraintKind.JSON_SCHEMA)
    assert refused.value.reason is Reason.INVALID_GRAMMAR
    assert why in refused.value.message
    assert "%" not in refused.value.message, "the matcher's own notation is not shown"


def test_a_client_does_not_set_the_matchers_options() -> None:
    assert accepts(schema({"type": "boolean", "x-guidance": {"whitespace_flexible": "nonsense"}}), "true")


@pytest.mark.parametrize(("text", "depth"), [("{}", 1), ('{"a{[": [1, {}]}', 3), ('"[\\"["', 0), ("]]]", 0)])
def test_brackets_in_strings_do_not_nest(text: str, depth: int) -> None:
    assert json_nesting(text) == depth
