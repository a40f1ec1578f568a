"""The routes of OpenAI's API. They are not in the contract, so they are written here, one call each."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gatewayd.event_stream import EventStream
from gatewayd.exchange import Exchange
from gatewayd.json_codec import encode_json
from gatewayd.openai.answer import WholeAnswer
from gatewayd.openai.chat_request import read_chat
from gatewayd.openai.chunks import ChunkFrames
from gatewayd.openai.completion_request import read_completion
from gatewayd.openai.fields import Json
from gatewayd.openai.generation import Generation
from gatewayd.openai.models import model_json, models_json
from gatewayd.request_body import BodyReader
from gatewayd.route_table import RouteTable
from gatewayd.template import PathTemplate, parse_template
from gatewayd.told import View
from gatewayd.transcode import JSON
from gatewayd.unbroken import UnbrokenTask
from gatewayd.upstream import Upstream
from llama_orch.v2 import catalog_service_pb2, task_service_pb2
from llorch.clock import Clock
from llorch.errors import InvalidArgument, Reason
from llorch.rpc.client import Metadata

Variables = Mapping[str, str]

_CATALOG = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].methods_by_name
_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class OpenAiRoute:
    http_method: str
    template: PathTemplate
    handle: Callable[[Exchange, Variables, Metadata], Awaitable[None]]


class OpenAiDoor:
    """`elsewhere` are the paths of the contract, which has what this API has not here."""

    def __init__(
        self,
        upstream: Upstream,
        streams: EventStream,
        bodies: BodyReader,
        clock: Clock,
        elsewhere: Iterable[str] = (),
    ) -> None:
        self._upstream = upstream
        self._streams = streams
        self._bodies = bodies
        self._clock = clock
        self._routes = RouteTable(
            (
                OpenAiRoute("POST", parse_template("/v1/chat/completions"), self._chat),
                OpenAiRoute("POST", parse_template("/v1/completions"), self._complete),
                OpenAiRoute("GET", parse_template("/v1/models"), self._list_models),
                OpenAiRoute("GET", parse_template("/v1/models/{model=**}"), self._show_model),
            ),
            elsewhere,
        )

    async def __call__(self, exchange: Exchange, metadata: Metadata) -> None:
        route, variables = self._routes.find(exchange.method, exchange.raw_path)
        if exchange.query:
            raise InvalidArgument(Reason.UNKNOWN_FIELD, f"{route.template.text} takes no query parameters")
        await route.handle(exchange, variables, metadata)

    async def _chat(self, exchange: Exchange, _variables: Variables, metadata: Metadata) -> None:
        await self._generate(exchange, await self._bodies.read(exchange, read_chat), metadata)

    async def _complete(self, exchange: Exchange, _variables: Variables, metadata: Metadata) -> None:
        await self._generate(exchange, await self._bodies.read(exchange, read_completion), metadata)

    async def _generate(self, exchange: Exchange, generation: Generation, metadata: Metadata) -> None:
        request = task_service_pb2.GenerateRequest(task=generation.task)
        created = int(self._clock.wall().timestamp())
        if generation.stream.wanted:
            pieces = self._upstream.read_task(request, metadata, View.PIECES)
            await self._streams.relay(exchange, pieces, ChunkFrames(generation, created))
            return
        events = self._upstream.read_task(request, metadata, View.WHOLE)
        answer = await self._collect(events, lambda: WholeAnswer(generation.shape, created))
        _answer(exchange, answer.show())

    async def _collect(self, events: UnbrokenTask, begin: Callable[[], WholeAnswer]) -> WholeAnswer:
        """Output that begins anew is another answer."""
        answer, life = begin(), events.lives
        async with self._streams.collect(events):
            async for response in events:
                if events.lives != life:
                    answer, life = begin(), events.lives
                answer.take(response.event)
        return answer

    async def _list_models(self, exchange: Exchange, _variables: Variables, metadata: Metadata) -> None:
        models = await self._all_models(metadata)
        _answer(exchange, {"object": "list", "data": models})

    async def _all_models(self, metadata: Metadata) -> list[Json]:
        found: list[Json] = []
        request = catalog_service_pb2.ListModelsRequest(page_size=_PAGE_SIZE)
        while True:
            page: Any = await self._upstream.call(_CATALOG["ListModels"], request, metadata)
            found += [shown for model in page.models for shown in models_json(model)]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def _show_model(self, exchange: Exchange, variables: Variables, metadata: Metadata) -> None:
        name = variables["model"]  # an app may call a model openai/gpt-4o
        request = catalog_service_pb2.GetModelRequest(model=name)
        response: Any = await self._upstream.call(_CATALOG["GetModel"], request, metadata)
        _answer(exchange, model_json(response.model, name))


def _answer(exchange: Exchange, shown: Json) -> None:
    exchange.answer(200, JSON, encode_json(shown))
