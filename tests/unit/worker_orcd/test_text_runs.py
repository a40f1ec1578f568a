"""Long runs of characters of one kind."""

import pytest

from worker_orcd.engines.llama_cpp.text_runs import longest_run


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("", 0),
        ("a", 1),
        ("one two", 3),
        ("aaaa1111 ", 4),
        ("  \t\r\n", 5),
        ("word!!!?!", 5),
        ("été ÀÉ", 3),
        ("世界，你好。", 2),
        ("\ud800abc", 3),
        ("😀" * 7 + "a", 7),
        ("ab" * 50_000 + " " + "c" * 100_001, 100_001),
    ],
)
def test_the_longest_run_of_letters_digits_spaces_or_others(text: str, longest: int) -> None:
    assert longest_run(text) == longest
