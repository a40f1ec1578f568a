"""The JSON text of a call's arguments while it comes: where it ends, and what clients see of it. Pure."""

import json
import re

_IN_STRING = re.compile(r'[^"\\\x00-\x1f]+')
_OUTSIDE = re.compile(r'[^"{}\[\]<]+')
_MARK_BEGINS = "<"


class ArgumentText:
    """Reads an object from its brace on. Clients see it as the model writes it, but that line ends within strings,
    which are no JSON, are escaped.

    Brackets are counted, and little else is looked at: what is no JSON comes through as it is, for it is a call by
    now. But a mark that no string holds ends the arguments: with a bracket too few, all that follows would be in them.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._after_backslash = False

    def read(self, text: str) -> tuple[str, int, bool]:
        """What clients see of the next piece, how much of it belongs to the object, and whether that has ended."""
        seen: list[str] = []
        at = 0
        while at < len(text):
            run = None if self._after_backslash else (_IN_STRING if self._in_string else _OUTSIDE).match(text, at)
            if run is not None:
                seen.append(run.group())
                at = run.end()
                continue
            if text[at] == _MARK_BEGINS and not self._in_string:
                return "".join(seen), at, True
            seen.append(self._take(text[at]))
            at += 1
            if not self._depth:
                return "".join(seen), at, True
        return "".join(seen), at, False

    def _take(self, character: str) -> str:
        """One character that may change what the next ones mean."""
        if self._after_backslash:
            self._after_backslash = False
        elif character == '"':
            self._in_string = not self._in_string
        elif self._in_string:
            self._after_backslash = character == "\\"
        else:
            self._depth += 1 if character in "{[" else -1
        return json.dumps(character)[1:-1] if character < " " else character
