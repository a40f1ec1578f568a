"""Speaks as much of the Hub's protocol as its library asks for: what a repository holds, and its files."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from support.download_server import OTHER_PUBLIC, DownloadServer, Request, ServedFile, head

COMMIT = "c0ffee" * 6 + "cafe"
CDN = "cdn.example.net"


@dataclass
class FakeHub:
    """A repository `org/repo` on a server. Its files redirect to another host, as large ones of the real one do.

    `blobs_at` is where they redirect to, empty for the server itself. `refusal` is (status, error code, message) of
    every question; `token` has to be shown if it is set.
    """

    server: DownloadServer
    files: Mapping[str, bytes]
    repo: str = "org/repo"
    blobs_at: str = f"https://{CDN}"
    token: str = ""
    refusal: tuple[int, str, str] | None = None
    says: dict[str, Any] = field(default_factory=dict)
    cdn_authorizations: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        for revision in ("", "/revision/main", "/revision/v1"):
            self.server.answers[f"/api/models/{self.repo}{revision}"] = self._tell
        for path in self.files:
            self.server.answers[f"/{self.repo}/resolve/{COMMIT}/{path}"] = self._redirect
            self.server.answers[f"/blobs/{path}"] = self._serve

    async def _tell(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if self.refusal is not None or self._lacks_token(request):
            status, code, message = self.refusal or (401, "RepoNotFound", "no")
            writer.write(_json(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message}))
            return
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "blobId": "0" * 40,
                "lfs": {"sha256": sha256(content).hexdigest(), "size": len(content), "pointerSize": 134},
            }
            for path, content in self.files.items()
        ]
        told = {"id": self.repo, "modelId": self.repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 1}
        writer.write(_json(200, {**told, "siblings": siblings, **self.says}))

    async def _redirect(self, request: Request, writer: asyncio.StreamWriter) -> None:
        path = request.path.partition(f"/resolve/{COMMIT}/")[2]
        if self._lacks_token(request):
            writer.write(head(401, {"Content-Length": "0"}))
        else:
            writer.write(head(302, {"Location": f"{self.blobs_at}/blobs/{path}?sig=x", "Content-Length": "0"}))

    async def _serve(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.cdn_authorizations.append(request.headers.get("authorization"))
        content = self.files[request.path.partition("?")[0].removeprefix("/blobs/")]
        await ServedFile(content)(request, writer)

    def _lacks_token(self, request: Request) -> bool:
        return bool(self.token) and request.headers.get("authorization") != f"Bearer {self.token}"


def _json(status: int, content: object, headers: Mapping[str, str] | None = None) -> bytes:
    body = json.dumps(content).encode()
    return (
        head(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}) + body
    )


NAMES = {CDN: [[OTHER_PUBLIC]]}
"""For `Internet`: the host of the blobs is another one."""
