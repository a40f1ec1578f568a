"""How strict an assignment is, and how that is told. Pure."""

from enum import StrEnum
from typing import Self


class Mode(StrEnum):
    """The values stand in records of assignments: they never change."""

    PIN = "PIN", "only on", "Only there."
    PREFER = "PREFER", "preferably on", "There if it can."
    AVOID = "AVOID", "not on", "Not there."

    before_places: str
    """As in "coder only on garage"."""
    meaning: str
    """One sentence, for flags, settings and documents."""

    def __new__(cls, value: str, before_places: str, meaning: str) -> Self:
        mode = str.__new__(cls, value)
        mode._value_, mode.before_places, mode.meaning = value, before_places, meaning
        return mode

    @property
    def word(self) -> str:
        """Its name in flags, in settings, and among the wishes of a request."""
        return self.lower()


STANDARD = Mode.PIN
"""Of a command line that names none."""


def all_meanings() -> str:
    """One sentence about all modes, such as "Only there (pin), or not there (avoid)."."""
    *most, last = (f"{mode.meaning.removesuffix('.').lower()} ({mode.word})" for mode in Mode)
    return f"{', '.join(most)}, or {last}.".capitalize()
