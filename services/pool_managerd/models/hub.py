"""The Hugging Face Hub: what a repository holds, by the Hub's own library, over connections of our own.

The library tells which files there are, where they lie, which token opens them, and why one is refused. `download/`
fetches the files themselves, as those of any other server.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx2

from llorch.errors import LlorchError, NotFound, PermissionDenied, Reason, Unavailable
from llorch.logs import get_logger
from llorch.model_reference import HubReference
from pool_managerd.models.download.answer import Interrupted
from pool_managerd.models.download.download import RemoteFile
from pool_managerd.models.download.get import Wanted, get
from pool_managerd.models.download.network import Network
from pool_managerd.models.download.policy import DownloadPolicy, refused
from pool_managerd.models.hub_files import HubFile, choose

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_log = get_logger(__name__)

_LONGEST_ANSWER = 32 * 2**20
_ANSWER_WITHIN_S = 60.0
_PASSED_ON = frozenset({"content-type", "x-error-code", "x-error-message", "x-request-id", "retry-after"})


class Hub:
    """`where_it_fits` says for a number of bytes which devices of this node could hold them, for people."""

    def __init__(self, policy: DownloadPolicy, network: Network, where_it_fits: Callable[[int], str]) -> None:
        self._policy = policy
        self._network = network
        self._where_it_fits = where_it_fits
        self._first = asyncio.Lock()
        self._is_prepared = False

    async def files(self, reference: HubReference) -> list[RemoteFile]:
        """The files of the model that is meant, of one commit, the first one first.

        Raises the Hub's refusals with a message, and a list of the models where the reference is ambiguous.
        """
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await self._prepare()
                return await asyncio.to_thread(self._look, reference)
        except TimeoutError:
            raise Interrupted(f"the Hub did not list {reference.repo} in time") from None

    async def _prepare(self) -> None:
        """Once: the library has one client for the whole process, and closes it when it gets another."""
        async with self._first:
            if not self._is_prepared:
                transport = _GuardedTransport(self._policy, self._network, asyncio.get_running_loop())
                await asyncio.to_thread(_hand_to_library, transport)
                self._is_prepared = True

    def _look(self, reference: HubReference) -> list[RemoteFile]:
        # Late: most nodes never ask the Hub, and the library is not small.
        from huggingface_hub import HfApi, get_token, hf_hub_url

        api = HfApi()
        info = self._ask(api.model_info, reference)
        files = [
            HubFile(sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs else "")
            for sibling in info.siblings or ()
        ]
        chosen = choose(reference, files, self._where_it_fits)
        token = get_token()
        return [
            RemoteFile(
                hf_hub_url(reference.repo, file.path, revision=info.sha or reference.revision, endpoint=api.endpoint),
                file.name,
                file.size,
                file.sha256,
                authorization=f"Bearer {token}" if token else "",
            )
            for file in chosen.files
        ]

    def _ask(self, model_info: "Callable[..., ModelInfo]", reference: HubReference) -> "ModelInfo":
        from huggingface_hub import errors

        repo = reference.repo
        try:
            return model_info(repo, revision=reference.revision or None, files_metadata=True)
        except errors.GatedRepoError:
            raise _not_given(
                f"{repo} needs an account that accepted its terms: accept them at https://huggingface.co/{repo}, "
                "and set HF_TOKEN where the pool manager runs"
            ) from None
        except errors.RevisionNotFoundError:
            raise NotFound(Reason.MODEL_FILE_MISSING, f"{repo} has no revision {reference.revision!r}") from None
        except errors.RepositoryNotFoundError:
            raise NotFound(
                Reason.MODEL_FILE_MISSING,
                f"the Hub has no {repo}, or keeps it private: see to its name, or set HF_TOKEN for the pool manager",
            ) from None
        except errors.OfflineModeIsEnabled:
            raise Unavailable(
                Reason.UPSTREAM_UNAVAILABLE, "HF_HUB_OFFLINE is set where the pool manager runs; take it away"
            ) from None
        except errors.HfHubHTTPError as error:
            raise Interrupted(f"the Hub answers with HTTP {error.response.status_code} about {repo}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # Also of the library, when an answer is none of the Hub's.
            _log.warning("hub_answer_not_understood", repo=repo, error=repr(error))
            raise Interrupted(f"the Hub's answer about {repo} is not valid") from None


class _GuardedTransport(httpx2.BaseTransport):
    """What the library asks from its thread, asked by the event loop under the same policy as every download."""

    def __init__(self, policy: DownloadPolicy, network: Network, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._network = network
        self._loop = loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result(_ANSWER_WITHIN_S)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        wanted = Wanted(str(request.url), {}, request.headers.get("authorization", ""))
        async with get(wanted, self._policy, self._network) as answer:
            content = bytearray()
            async for piece in answer.body:
                content += piece
                if len(content) > _LONGEST_ANSWER:
                    raise refused(f"{answer.location.host} answers without an end")
        headers = {name: value for name, value in answer.headers.items() if name in _PASSED_ON}
        return httpx2.Response(answer.status, headers=headers, content=bytes(content), request=request)


def _hand_to_library(transport: httpx2.BaseTransport) -> None:
    from huggingface_hub import set_client_factory

    set_client_factory(lambda: httpx2.Client(transport=transport, trust_env=False, timeout=None))


def _not_given(message: str) -> LlorchError:
    return PermissionDenied(Reason.SOURCE_REFUSED, message)
