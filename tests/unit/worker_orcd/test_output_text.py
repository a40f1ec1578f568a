from hypothesis import example, given
from hypothesis import strategies as st

from worker_orcd.text.output_text import OutputText, Released


def run(pieces: list[str | bytes], stops: tuple[str, ...] = ()) -> list[Released]:
    """Everything that was released, the flush included, up to a stop."""
    text = OutputText(stops)
    released = []
    for token_id, piece in enumerate(pieces):
        now = text.push(token_id, piece)
        if now is not None:
            released.append(now)
            if now.stop:
                return released
    last = text.flush()
    return [*released, last] if last is not None else released


def test_a_whole_piece_is_released_at_once() -> None:
    assert OutputText().push(7, " one") == Released((7,), " one")


def test_a_character_in_two_tokens_is_released_with_both_ids() -> None:
    text = OutputText()
    assert text.push(1, b"\xc3") is None
    assert text.push(2, b"\xbc!") == Released((1, 2), "ü!")


def test_an_unfinished_character_at_the_end_is_no_text() -> None:
    assert run(["a", b"\xf0\x9f"]) == [Released((0,), "a"), Released((1,), "")]
    assert run(["a", b"b\xf0\x9f"], ("xyz",)) == [Released((0,), "a"), Released((1,), "b")]


def test_bytes_that_are_no_utf8_become_replacements_and_nothing_is_lost() -> None:
    released = run([b"\xff", "a", b"\xc3", "b"])
    assert "".join(part.text for part in released) == "\ufffda\ufffdb"
    assert [token_id for part in released for token_id in part.token_ids] == [0, 1, 2, 3]


def test_a_stop_string_over_three_tokens_is_left_out() -> None:
    released = run(["Hello", " ST", "O", "P now"], ("STOP",))
    assert "".join(part.text for part in released) == "Hello "
    assert released[-1].stop == "STOP"
    assert [token_id for part in released for token_id in part.token_ids] == [0, 1, 2, 3]


def test_what_only_looked_like_a_stop_string_is_released_when_it_is_clear() -> None:
    text = OutputText(("END",))
    assert text.push(1, "E") is None
    assert text.push(2, "N") is None
    assert text.push(3, "t") == Released((1, 2, 3), "ENt")


def test_the_stop_string_that_is_complete_first_counts() -> None:
    assert run(["abcd"], ("cd", "bc"))[-1] == Released((0,), "a", "bc")


def test_only_tokens_before_a_possible_stop_are_released() -> None:
    text = OutputText(("END",))
    assert text.push(1, "a") == Released((1,), "a")
    assert text.push(2, "b E") is None
    assert text.push(3, "x") == Released((2, 3), "b Ex")


def test_held_text_is_flushed_at_the_end() -> None:
    assert run(["a", "EN"], ("END",)) == [Released((0,), "a"), Released((1,), "EN")]


def as_pieces(text: str, cuts: list[int]) -> list[str | bytes]:
    content = text.encode()
    ends = sorted({min(cut, len(content)) for cut in cuts} | {len(content)})
    parts = [content[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return [_readable(part) for part in parts]


def _readable(part: bytes) -> str | bytes:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return part


texts = st.text(alphabet="aabbü€😀 ", max_size=40)
cuts = st.lists(st.integers(0, 80), max_size=20)


@given(texts, cuts)
def test_however_text_is_cut_it_comes_out_whole(text: str, cuts: list[int]) -> None:
    pieces = as_pieces(text, cuts)
    released = run(pieces)
    assert "".join(part.text for part in released) == text
    assert [token_id for part in released for token_id in part.token_ids] == list(range(len(pieces)))


@given(texts, cuts, st.lists(st.text(alphabet="abü ", min_size=1, max_size=4), min_size=1, max_size=3))
@example(" aa", [2], ["a", " aa"])
@example(" aa", [], ["a", " aa"])
def test_text_ends_before_the_first_stop_however_it_is_cut(text: str, cuts: list[int], stops: list[str]) -> None:
    released = run(as_pieces(text, cuts), tuple(stops))
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    assert "".join(part.text for part in released) == (text[: min(found)[1]] if found else text)
    assert bool(released and released[-1].stop) == bool(found)


@given(texts, cuts, st.lists(st.text(alphabet="abü ", min_size=1, max_size=4), max_size=3), st.integers(0, 10))
def test_a_run_that_resumes_after_any_release_goes_on_as_if_nothing_had_happened(
    text: str, cuts: list[int], stops: list[str], resumed_after: int
) -> None:
    pieces = as_pieces(text, cuts)
    whole = run(pieces, tuple(stops))
    before = whole[:resumed_after]
    if len(before) == len(whole):
        return
    done = sum(len(part.token_ids) for part in before)
    after = run(pieces[done:], tuple(stops))
    assert "".join(part.text for part in before + after) == "".join(part.text for part in whole)
