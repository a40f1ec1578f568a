"""One field of a request: what it means, which values it takes, and what holds where it is absent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import inf, isfinite
from struct import pack, unpack
from types import MappingProxyType
from typing import Any

BYTES = "bytes"
CHARACTERS = "characters"

MOST_UINT32 = 2**32 - 1
"""What a field of the contract's type `uint32` can hold."""

_KEY = "option"


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range; with `open_low` the lower end itself is out."""

    low: float
    high: float = inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        """NaN and infinities are in no range. An end that is a float may be rounded to 32 bits, as in the contract."""
        if not isfinite(value) or (self.open_low and value <= self.low):
            return False
        return self.low <= value <= self.high or value in (_rounded(self.low), _rounded(self.high))

    def __str__(self) -> str:
        if self.high == inf:
            return f"at least {self.low:.10g}"
        return f"{'above ' if self.open_low else ''}{self.low:.10g} to {self.high:.10g}"


def _rounded(end: float) -> float:
    return float(unpack("f", pack("f", end))[0]) if isinstance(end, float) else end


@dataclass(frozen=True, slots=True)
class Option:
    """`meaning` is one sentence.

    `allowed` is the range of a number, or of the length of a text (then `unit` is BYTES or CHARACTERS). `entries` is
    how many items a list or map may have; then `allowed` holds for each of them. `words` are all values of a text that
    has only some. `default` is what holds where the field is absent: a number, or words. An option that has its `off`
    value asks nothing of an engine.
    """

    meaning: str
    allowed: Range | None = None
    default: float | str | None = None
    off: float | None = None
    unit: str = ""
    entries: Range | None = None
    words: tuple[str, ...] = ()

    @property
    def facts(self) -> str:
        """The one form in which comments of the contract give them, such as "Default 40. 0 = off. Range 0 to 100."."""
        return " ".join(part for part in (self._default, self._off, self._entries, self._allowed) if part)

    @property
    def entries_words(self) -> str:
        """Such as "at most 64 entries"; empty for what is no list or map."""
        if self.entries is None:
            return ""
        return f"{f'at most {self.entries.high:.10g}' if self.entries.low == 0 else self.entries} entries"

    @property
    def help(self) -> str:
        """For command lines and settings, which show ranges by themselves."""
        return " ".join(part for part in (self.meaning, self._words, self._default) if part)

    @property
    def range_words(self) -> str:
        """The range with its unit, such as "1 to 1024 bytes"; empty without a range."""
        return "" if self.allowed is None else f"{self.allowed} {self.unit}".strip()

    @property
    def _default(self) -> str:
        if isinstance(self.default, str):
            return f"Default: {self.default}."
        return "" if self.default is None else f"Default {self.default:.10g}."

    @property
    def _words(self) -> str:
        return f"One of: {', '.join(self.words)}." if self.words else ""

    @property
    def _off(self) -> str:
        return "" if self.off is None else f"{self.off:.10g} = off."

    @property
    def _entries(self) -> str:
        return f"{self.entries_words[0].upper()}{self.entries_words[1:]}." if self.entries else ""

    @property
    def _allowed(self) -> str:
        if self.allowed is None:
            return ""
        if self.entries is not None:
            return f"Each {self.range_words}."
        return f"{'At' if self.allowed.high == inf else 'Range'} {self.range_words.removeprefix('at ')}."


Table = Mapping[str, Option]
"""By the name of the field in the contract."""


def option(default: float, allowed: Range, meaning: str, *, off: float | None = None) -> Any:
    """A field of a dataclass with its option beside it; for the type checker it is the default."""
    return field(default=default, metadata={_KEY: Option(meaning, allowed, default, off)})


def described(default: Any, by: Option) -> Any:
    """The same for an option whose default is told in words."""
    return field(default=default, metadata={_KEY: by})


def collected(kind: Callable[[], Any], described: Option) -> Any:
    """The same for a list or map, which is empty where the field is absent."""
    return field(default_factory=kind, metadata={_KEY: described})


def table_of(message: type[Any]) -> Table:
    """The options of a dataclass whose fields were all made by `option`, `described` or `collected`."""
    return MappingProxyType({each.name: each.metadata[_KEY] for each in fields(message)})


def values_of(options: type[Any], by: Any) -> dict[str, Any]:
    """What `by`, which has the fields of the dataclass `options` among its own, says there, by name."""
    return {each.name: getattr(by, each.name) for each in fields(options)}
