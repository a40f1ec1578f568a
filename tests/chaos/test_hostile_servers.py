"""Download servers that mean harm: none reaches the inside, none leaves a file, none keeps the node for long."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import LlorchError, Reason
from pool_managerd.models.download.policy import DownloadPolicy
from support.download_server import (
    PUBLIC,
    Answer,
    DownloadServer,
    Internet,
    Request,
    download_server,
    head,
    raw,
    redirect,
)
from support.hub import FakeHub
from support.models import Downloads, model_bytes

HOST, OTHER = "files.example.org", "cdn.example.net"
PATH = "/tiny.gguf"
MODEL = model_bytes(200_000)
POLICY = DownloadPolicy(
    max_file_bytes=2**20,
    max_duration_s=6.0,
    answer_within_s=0.4,
    silence_s=0.4,
    slow_window_s=0.4,
    slowest_bytes_per_s=20_000,
)
OVER_AFTER_S = 10.0

Names = dict[str, Sequence[Sequence[str]]]


def whole(content: bytes = MODEL, **headers: str) -> Answer:
    pairs = {"Content-Length": str(len(content)), **{name.replace("_", "-"): text for name, text in headers.items()}}
    return raw(head(200, pairs) + content)


def forever(start: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    """Begins like this, and then goes on and on."""

    async def send(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return send


async def never(_: Request, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def to(url: str, status: int = 302) -> dict[str, Answer]:
    return {PATH: redirect(url, status)}


@dataclass(frozen=True)
class Attack:
    """`answers` by path; `names` are answers of DNS. `reason` is what the node says of it."""

    name: str
    answers: dict[str, Answer]
    reason: Reason = Reason.SOURCE_REFUSED
    source: str = f"https://{HOST}{PATH}"
    names: Names = field(default_factory=dict)


INSIDE = (
    ("loopback", "https://127.0.0.1/x.gguf"),
    ("another loopback", "https://127.8.8.8/x.gguf"),
    ("loopback by name", "https://localhost/x.gguf"),
    ("loopback of IPv6", "https://[::1]/x.gguf"),
    ("loopback as IPv4 in IPv6", "https://[::ffff:127.0.0.1]/x.gguf"),
    ("loopback through NAT64", "https://[64:ff9b::7f00:1]/x.gguf"),
    ("loopback through 6to4", "https://[2002:7f00:1::]/x.gguf"),
    ("loopback as one number", "https://2130706433/x.gguf"),
    ("loopback in hexadecimal", "https://0x7f000001/x.gguf"),
    ("loopback in short", "https://127.1/x.gguf"),
    ("no address at all", "https://0.0.0.0/x.gguf"),
    ("the metadata service", "https://169.254.169.254/latest/meta-data"),
    ("the metadata service of IPv6", "https://[fd00:ec2::254]/latest/meta-data"),
    ("a private network", "https://10.0.0.1/x.gguf"),
    ("a router", "https://192.168.1.1/x.gguf"),
    ("a provider's own network", "https://100.64.0.1/x.gguf"),
    ("a link-local address", "https://[fe80::1]/x.gguf"),
    ("a multicast address", "https://224.0.0.1/x.gguf"),
    ("a host that is allowed to others only", "https://nas.lan/x.gguf"),
)

ATTACKS = [
    *(Attack(f"redirects to {name}", to(url)) for name, url in INSIDE),
    Attack("redirects to plain http", to(f"http://{HOST}/x.gguf")),
    Attack("redirects to a file", to("file:///etc/passwd")),
    Attack("redirects to another protocol", to(f"gopher://{HOST}/x.gguf")),
    Attack("redirects with credentials", to(f"https://me:you@{OTHER}/x.gguf")),
    Attack("redirects with signs that confuse parsers", to(f"https://{OTHER}\\@127.0.0.1/x.gguf")),
    Attack("redirects in a circle", to(f"https://{HOST}{PATH}")),
    Attack("redirects to nowhere", {PATH: raw(head(302, {"Content-Length": "0"}))}),
    Attack("redirects to a URL of a megabyte", to("https://x.example.org/" + "a" * 50_000)),
    Attack(
        "redirects with signs that no header has",
        to("https://cdn.example.net/\x0b/x\x00y"),
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack(
        "redirects over three hosts to the inside",
        {**to("/b"), "/b": redirect(f"https://{OTHER}/c", 307), "/c": redirect("https://10.1.1.1/", 308)},
    ),
    Attack("has an address inside", {PATH: whole()}, names={HOST: [["10.0.0.7"]]}),
    Attack("has an address inside beside a public one", {PATH: whole()}, names={HOST: [[PUBLIC, "127.0.0.1"]]}),
    Attack("has another address at the second look", {PATH: raw(b"")}, names={HOST: [[PUBLIC], ["127.0.0.1"]]}),
    Attack("sends without an end", {PATH: forever(head(200) + MODEL, bytes(2**16))}),
    Attack(
        "sends chunks without an end",
        {
            PATH: forever(
                head(200, {"Transfer-Encoding": "chunked"}) + b"8000\r\n" + MODEL[:0x8000] + b"\r\n",
                b"8000\r\n" + bytes(0x8000) + b"\r\n",
            )
        },
    ),
    Attack(
        "announces more than is allowed",
        {PATH: forever(head(200, {"Content-Length": str(2**50)}) + MODEL, bytes(2**16))},
    ),
    Attack("drips", {PATH: forever(head(200, {"Content-Length": "900000"}) + MODEL[:600], b"x", 0.05)}),
    Attack("drips headers", {PATH: forever(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.05)}, Reason.UPSTREAM_UNAVAILABLE),
    Attack(
        "sends headers without an end",
        {PATH: forever(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536)},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack(
        "says for ever that it goes on",
        {PATH: forever(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01)},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack("never answers", {PATH: never}, Reason.UPSTREAM_UNAVAILABLE),
    Attack(
        "stops in the middle",
        {PATH: raw(head(200, {"Content-Length": "900000"}) + MODEL[:9000])},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack("speaks another protocol", {PATH: raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")}, Reason.UPSTREAM_UNAVAILABLE),
    Attack(
        "has two lengths",
        {PATH: raw(head(200, [("Content-Length", "5"), ("Content-Length", "200000")]) + MODEL)},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack(
        "has a length that is none",
        {PATH: raw(head(200, {"Content-Length": "-1"}) + MODEL)},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack(
        "sends a bomb of zeros, compressed",
        {PATH: whole(gzip.compress(bytes(2**24)), Content_Encoding="gzip")},
        Reason.MODEL_FILE_INVALID,
    ),
    Attack(
        "sends a part without a request for it",
        {PATH: raw(head(206, {"Content-Range": "bytes 9-99/100", "Content-Length": "91"}) + MODEL[:91])},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack("sends a web page", {PATH: whole(b"<!doctype html>" + b" " * 1000)}, Reason.MODEL_FILE_INVALID),
    Attack("sends a program", {PATH: whole(b"\x7fELF" + bytes(1000))}, Reason.MODEL_FILE_INVALID),
    Attack("sends half a model as a whole", {PATH: whole(MODEL[: len(MODEL) // 2])}, Reason.MODEL_FILE_INVALID),
    Attack(
        "sends a model whose header lies",
        {PATH: whole(MODEL[:8] + b"\xff" * 16 + MODEL[24:])},
        Reason.MODEL_FILE_INVALID,
    ),
    Attack("sends nothing", {PATH: whole(b"")}, Reason.MODEL_FILE_INVALID),
    Attack(
        "sends another file than was named",
        {PATH: whole()},
        Reason.MODEL_FILE_INVALID,
        source=f"https://{HOST}{PATH}#sha256={'0' * 64}",
    ),
    Attack(
        "names a file of the system",
        {"/..%2f..%2fetc%2fx.gguf": whole(b"no model" * 100)},
        Reason.MODEL_FILE_INVALID,
        source=f"https://{HOST}/..%2f..%2fetc%2fx.gguf",
    ),
    Attack(
        "wants to choose the name",
        {PATH: whole(b"no model" * 100, Content_Disposition='attachment; filename="../../x"')},
        Reason.MODEL_FILE_INVALID,
    ),
    Attack(
        "is always out of order",
        {PATH: raw(head(503, {"Content-Length": "0", "Retry-After": "99999999"}))},
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    Attack("asks for a password", {PATH: raw(head(401, {"WWW-Authenticate": "Basic", "Content-Length": "0"}))}),
    Attack(
        "asks a proxy for it",
        {PATH: raw(head(305, {"Location": "https://10.0.0.1/", "Content-Length": "0"}))},
        Reason.SOURCE_REFUSED,
    ),
    Attack(
        "answers the Hub's questions with a redirect inside",
        {"/api/models/org/repo": redirect("https://169.254.169.254/")},
        source="hf:org/repo",
    ),
    Attack(
        "answers the Hub's questions without an end",
        {"/api/models/org/repo": forever(head(200), b" " * 2**20)},
        source="hf:org/repo",
    ),
    Attack(
        "answers the Hub's questions with nonsense",
        {"/api/models/org/repo": whole(json.dumps([1, 2]).encode())},
        Reason.UPSTREAM_UNAVAILABLE,
        source="hf:org/repo",
    ),
]


@pytest.fixture
async def server() -> AsyncIterator[DownloadServer]:
    async with download_server() as made:
        yield made


async def attempt(
    folder: Path, internet: Internet, source: str, policy: DownloadPolicy = POLICY
) -> tuple[Downloads, LlorchError]:
    async with TaskSupervisor("test") as tasks:
        downloads = await Downloads(folder / "models", internet.network(), tasks, policy).open()
        with pytest.raises(LlorchError) as refused:
            await downloads.shelf.stage(source).wait()
    return downloads, refused.value


@pytest.mark.req("POOL-2006")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_a_server_that(attack: Attack, server: DownloadServer, tmp_path: Path) -> None:
    server.answers.update(attack.answers)
    internet = Internet(server, {"nas.lan": [["192.168.1.5"]], **attack.names})
    begin = time.monotonic()
    downloads, refused = await attempt(tmp_path, internet, attack.source)
    assert time.monotonic() - begin < OVER_AFTER_S
    assert not internet.reached_inside, internet.dialled
    assert downloads.files == []
    assert downloads.shelf.models() == ()
    assert refused.reason is attack.reason, refused.message
    assert len(refused.message) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["models"]  # noqa: ASYNC240  # a local folder


@pytest.mark.parametrize("way", ["at once", "and back again"])
async def test_a_secret_is_shown_to_its_own_origin_alone(
    way: str, server: DownloadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-owner")
    hub = FakeHub(server, {"x.gguf": MODEL}, blobs_at=f"https://{OTHER}")
    server.answers["/blobs/x.gguf"] = redirect(f"https://{HOST}:8443/c")
    server.answers["/c"] = redirect("https://huggingface.co/d") if way == "and back again" else whole(b"no model" * 100)
    server.answers["/d"] = whole(b"no model" * 100)
    await attempt(tmp_path, Internet(server), "hf:org/repo")
    assert hub.token == ""
    shown = {request.host for request in server.requests if "authorization" in request.headers}
    assert shown == {"huggingface.co"}
    assert all("cookie" not in request.headers for request in server.requests)


async def test_a_server_that_can_not_prove_its_name_gets_no_request(server: DownloadServer, tmp_path: Path) -> None:
    server.answers[PATH] = whole()
    async with download_server() as unknown:
        _, refused = await attempt(tmp_path / "a", Internet(unknown_to(server, unknown)), f"https://{HOST}{PATH}")
        assert refused.reason is Reason.SOURCE_REFUSED
    names = {"evil.example.com": [[PUBLIC]]}
    _, refused = await attempt(tmp_path / "b", Internet(server, names), f"https://evil.example.com{PATH}")
    assert refused.reason is Reason.SOURCE_REFUSED
    assert server.requests == []


def unknown_to(trusted: DownloadServer, other: DownloadServer) -> DownloadServer:
    """Where `other` listens, while the node trusts the authority of `trusted` only."""
    return replace(trusted, address=other.address)


async def test_hosts_that_are_not_on_the_list_get_no_request(server: DownloadServer, tmp_path: Path) -> None:
    server.answers[PATH] = redirect(f"https://{OTHER}{PATH}")
    policy = replace(POLICY, hosts=("files.example.*",))
    internet = Internet(server)
    for source in (f"https://{HOST}{PATH}", f"https://{OTHER}{PATH}"):
        _, refused = await attempt(tmp_path, internet, source, policy)
        assert "download_hosts" in refused.message
    assert {request.host for request in server.requests} == {HOST}


def test_there_are_as_many_attacks_as_promised() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 30
