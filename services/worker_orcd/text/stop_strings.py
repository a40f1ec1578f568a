"""Finding stop strings in text that arrives in pieces. Pure."""

from collections.abc import Sequence


def earliest_stop(text: str, stops: Sequence[str]) -> tuple[str, int]:
    """The stop string that is complete first, and where it begins; the longest if several end there; ("", -1) if there
    is none. One that begins earlier and ends later does not count: whether it was there already would depend on how
    the text is cut into pieces.
    """
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return "", -1
    _, at, stop = min(found)
    return stop, at


def held_from(text: str, stops: Sequence[str]) -> int:
    """Where the longest tail begins that could still become a stop string; the text's length if there is
    none.
    """
    return min((_tail_start(text, stop) for stop in stops), default=len(text))


def _tail_start(text: str, stop: str) -> int:
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return at
        at = text.find(stop[0], at + 1)
    return len(text)
