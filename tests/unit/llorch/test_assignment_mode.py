"""What modes of assignments are called."""

from llorch.assignment_mode import Mode, all_meanings


def test_flags_and_settings_name_a_mode_by_its_word() -> None:
    assert [mode.word for mode in Mode] == ["pin", "prefer", "avoid"]


def test_one_sentence_tells_all_modes() -> None:
    assert all_meanings() == "Only there (pin), there if it can (prefer), or not there (avoid)."
