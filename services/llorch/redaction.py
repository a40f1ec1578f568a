"""Texts without the secrets of the URLs in them. Pure.

A source of a model may be a URL with a token in its query (`?token=…`, a signed URL), which works only if it is kept as
it is. So it is redacted wherever it is shown or logged: in answers, errors, logs and the audit log. A URL with a name
or a password in it is not taken at all, and no refusal repeats them.
"""

import re

REDACTED = "[redacted]"

_URL = re.compile(r"\b(?P<scheme>https?:|[a-z][a-z0-9+.-]*://)(?P<rest>[^\s\"<>`\\]*)", re.IGNORECASE)
_ENDS_A_SENTENCE = "'.,;:!)…"
_AUTHORITY = re.compile(r"/{0,3}[^/?#]*")
_PORT = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")
_HARMLESS = frozenset({"download", "inline", "raw"})
"""Names in a query whose values are no secrets. Which others are, no list can know."""
_DIGEST = re.compile(r"sha256=[0-9a-f]*", re.ASCII)


def redacted(text: str) -> str:
    """The text; of each URL in it without a name and a password, and without what its query says."""
    return _URL.sub(_shown, text) if is_url_like(text) else text


def is_url_like(text: str) -> bool:
    """Whether there may be a URL in it."""
    return "://" in text or "http" in text.lower()


def _shown(found: "re.Match[str]") -> str:
    rest = found["rest"]
    url = rest.rstrip(_ENDS_A_SENTENCE)
    before, mark, fragment = url.partition("#")
    path, question, query = before.partition("?")
    said = found["scheme"] + _without_user(path)
    if question:
        said += "?" + "&".join(_without_value(part) for part in query.split("&"))
    if mark:
        said += mark + (fragment if _DIGEST.fullmatch(fragment) else REDACTED)
    return said + rest[len(url) :]


def _without_user(path: str) -> str:
    """A name or a password may have a `/` in it that should have been encoded: what has no proper port before its first
    `/` is taken to be one, up to the last `@`.
    """
    match = _AUTHORITY.match(path)
    end = match.end() if match else 0
    authority = path[:end].lstrip("/")
    if "@" not in path or ("@" not in authority and _PORT.fullmatch(authority)):
        return path
    slashes = path[: end - len(authority)]
    at = path.rindex("@", 0, end) if "@" in authority else path.rindex("@")
    return f"{slashes}{REDACTED}{path[at:]}"


def _without_value(part: str) -> str:
    name, equals, value = part.partition("=")
    if not equals:
        return REDACTED if name else ""
    return part if not value or name.lower() in _HARMLESS else f"{name}={REDACTED}"
