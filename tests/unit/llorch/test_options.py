"""Options, their one form in words, and the check of what was said against a table of them."""

import math
from contextlib import nullcontext
from typing import Any

import pytest
from pydantic import ValidationError, create_model

from llorch.errors import InvalidArgument
from llorch.option_field import option_field
from llorch.options.checking import check_said
from llorch.options.option import BYTES, CHARACTERS, Option, Range, table_of
from llorch.options.sampling import SAMPLING, Sampling

TABLE = {
    "share": Option("A share.", Range(0, 1, open_low=True)),
    "wait_ms": Option("A wait.", Range(1), unit="ms"),
    "stop": Option("Texts.", Range(1, 4), unit=BYTES, entries=Range(0, 2)),
    "places": Option("Places.", Range(1, 4), unit=CHARACTERS, entries=Range(1, 2)),
    "bias": Option("Biases.", Range(-1, 1), entries=Range(0, 2)),
    "free": Option("Anything."),
}


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_a_range_has_its_ends(value: float) -> None:
    assert value in Range(0, 1)


@pytest.mark.parametrize(("value", "is_in"), [(0.009999999776482582, True), (0.01, True), (0.0099, False)])
def test_an_end_may_be_rounded_to_32_bits(value: float, is_in: bool) -> None:
    assert (value in Range(0.01, 100)) == is_in


def test_a_whole_end_is_not_rounded() -> None:
    assert 2**32 not in Range(0, 2**32 - 1)


@pytest.mark.parametrize(("value", "is_taken"), [("", False), ("a", True), ("a" * 8, True), ("a" * 9, False)])
def test_a_setting_takes_a_text_of_the_length_that_its_option_says(value: str, is_taken: bool) -> None:
    setting: Any = option_field(None, Option("A note.", Range(1, 8), unit=CHARACTERS))
    model = create_model("Settings", note=(str, setting))
    with nullcontext() if is_taken else pytest.raises(ValidationError, match="note"):
        model(note=value)


def test_a_length_in_bytes_is_not_left_to_a_setting() -> None:
    with pytest.raises(TypeError, match="bytes"):
        option_field("", Option("A note.", Range(1, 8), unit=BYTES))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01])
def test_no_range_has_what_is_no_number_or_below_it(value: float) -> None:
    assert value not in Range(0)
    assert value not in Range(0, 1)


def test_an_open_range_is_without_its_lower_end() -> None:
    assert 0 not in Range(0, 1, open_low=True)
    assert 1e-9 in Range(0, 1, open_low=True)


@pytest.mark.parametrize(
    ("described", "facts"),
    [
        (SAMPLING["temperature"], "Default 0.8. Range 0 to 100."),
        (SAMPLING["typical_p"], "Default 1. 1 = off. Range above 0 to 1."),
        (SAMPLING["logit_bias"], "At most 1024 entries. Each -100 to 100."),
        (TABLE["wait_ms"], "At least 1 ms."),
        (TABLE["stop"], "At most 2 entries. Each 1 to 4 bytes."),
        (TABLE["places"], "1 to 2 entries. Each 1 to 4 characters."),
        (Option("Words.", default="what is left"), "Default: what is left."),
        (TABLE["free"], ""),
    ],
)
def test_an_option_has_one_form_in_words(described: Option, facts: str) -> None:
    assert described.facts == facts


def test_a_default_stands_beside_its_option() -> None:
    assert Sampling().top_k == SAMPLING["top_k"].default == 40
    assert table_of(Sampling).keys() == SAMPLING.keys() - {"seed"}


def test_every_default_is_in_its_range() -> None:
    for name, described in SAMPLING.items():
        if isinstance(described.default, float | int):
            assert described.allowed is not None, name
            assert described.default in described.allowed, name


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"share": 1, "wait_ms": 2**32 - 1, "free": "x"},
        {"stop": ["éé", "abcd"], "places": ["éééé"], "bias": {7: -1.0}},
        {"stop": [], "share": None, "unknown": 7},
    ],
)
def test_what_is_in_the_table_passes(said: dict[str, Any]) -> None:
    check_said("work", TABLE, said)


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"share": 0.0}, "work.share", "is 0; it has to be above 0 to 1"),
        ({"share": math.nan}, "work.share", "is nan; it has to be above 0 to 1"),
        ({"wait_ms": 0}, "work.wait_ms", "is 0; it has to be at least 1 ms"),
        ({"stop": ["a", "b", "c"]}, "work.stop", "has 3 entries; it has to have 0 to 2"),
        ({"stop": ["a", ""]}, "work.stop[1]", "has 0 bytes; it has to have 1 to 4 bytes"),
        ({"stop": ["ééé"]}, "work.stop[0]", "has 6 bytes; it has to have 1 to 4 bytes"),
        ({"places": []}, "work.places", "has 0 entries; it has to have 1 to 2"),
        ({"bias": {7: -1.5}}, "work.bias[7]", "is -1.5; it has to be -1 to 1"),
    ],
)
def test_what_is_not_is_refused_by_name_with_its_range(said: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_said("work", TABLE, said)
    assert refused.value.violations[0].field == field
    assert refused.value.message == f"{field}: {words}"


def test_a_table_at_the_top_has_no_path() -> None:
    with pytest.raises(InvalidArgument, match=r"^wait_ms: "):
        check_said("", TABLE, {"wait_ms": 0})
