"""Path templates of `google.api.http`: `/v2/tasks/{task_id}/events`, `/v1/{name=shelves/*}:move`."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from llorch.errors import InvalidArgument, Reason

_PIECE = re.compile(r"\{(?P<field>[^{}=]+)(?:=(?P<inner>[^{}]+))?\}|(?P<literal>[^{}]+)")
_WILDCARD = re.compile(r"(\*\*|\*)")


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """`fields` are the paths of the request's fields that the variables fill, in order."""

    text: str
    fields: tuple[str, ...]
    pattern: re.Pattern[str]

    def match(self, raw_path: str) -> dict[str, str] | None:
        """The variables' values by field path; None where the path is another one.

        `raw_path` is as it came over the wire: a slash in a value travels as %2F, and an escaped letter in
        a literal segment does not match.
        """
        found = self.pattern.fullmatch(raw_path)
        if found is None:
            return None
        return {field: _unescape(field, value) for field, value in zip(self.fields, found.groups(), strict=True)}

    @property
    def specificity(self) -> tuple[int, ...]:
        """Sorts templates so that a literal segment wins over a variable, and one segment over many."""
        return tuple(
            2 if "**" in segment else 1 if "*" in segment or "{" in segment else 0 for segment in self.text.split("/")
        )


def parse_template(text: str) -> PathTemplate:
    """Raises ValueError on what is no template; the templates come from the contract alone."""
    fields: list[str] = []
    pattern = ""
    end = 0
    for piece in _PIECE.finditer(text):
        if piece.start() != end:
            break
        end = piece.end()
        if piece["field"]:
            fields.append(piece["field"])
            pattern += f"({_segments(piece['inner'] or '*')})"
        else:
            pattern += _segments(piece["literal"])
    if end != len(text) or not text.startswith("/"):
        raise ValueError(f"{text!r} is not a path template")
    return PathTemplate(text, tuple(fields), re.compile(pattern))


def _segments(text: str) -> str:
    """`*` is one segment, `**` any number of them, the rest stands for itself."""
    patterns = {"*": "[^/]+", "**": ".*"}
    return "".join(patterns.get(part) or re.escape(part) for part in _WILDCARD.split(text))


def _unescape(field: str, value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgument(
            Reason.MALFORMED_REQUEST, f"{field}: the path has percent-escapes that are not UTF-8"
        ) from None
