import pytest

from worker_orcd.engines.llama_cpp.masking import Part
from worker_orcd.engines.llama_cpp.special_tokens import Fragment, SpecialToken, fragments

END, LONGER, TOOL = (
    SpecialToken(1, b"<end>", is_control=True),
    SpecialToken(2, b"<end>x", is_control=True),
    SpecialToken(3, b"<t>", is_control=False),
)
TOKENS = (LONGER, END, TOOL)


def meant(text: str) -> Part:
    return Part(text, literal=False)


def literal(text: str) -> Part:
    return Part(text, literal=True)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([], []),
        ([meant("no é")], ["no é".encode()]),
        ([meant("a<end>b<t>"), meant("<end>")], [b"a", 1, b"b", 3, 1]),
        ([meant("<end>x<end>")], [2, 1]),
        ([meant("é\n"), literal("<end>"), meant(" b<end>")], ["é\n<end> b".encode(), 1]),
        ([literal("<end>"), meant("x<end>x")], [b"<end>x", 2]),
        ([literal("<end>x")], [b"<end>x"]),
        ([meant("<e"), literal("nd>"), meant("<"), meant("end>")], [b"<end>", 1]),
        ([literal("a<t>b")], [b"a", 3, b"b"]),
    ],
)
def test_control_tokens_are_found_in_what_is_not_literal(parts: list[Part], found: list[Fragment]) -> None:
    assert fragments(parts, TOKENS) == found


def test_a_token_that_eats_white_space_takes_none_of_other_tokens() -> None:
    before = SpecialToken(1, b"<b>", is_control=True, eats_before=True)
    after = SpecialToken(2, b"<a>", is_control=True, eats_after=True)
    assert fragments([meant("a \n<b> b<a>\t <a> "), literal(" c")], (before, after)) == [b"a", 1, b" b", 2, 2, b"c"]


def test_a_control_token_that_the_library_always_finds_is_cut_in_two_where_it_is_literal() -> None:
    shown = SpecialToken(4, b"<s>", is_control=True, is_always_found=True)
    found = fragments([meant("a<s>"), literal("b<s>c<s>"), meant("<s>")], (shown,))
    assert found == [b"a", 4, b"b<", b"s>c<", b"s>", 4]
