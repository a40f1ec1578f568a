"""Calls about tasks: submit them, read them, cancel them."""

from collections.abc import Callable
from typing import Any, Unpack

from llama_orch.v2 import cancel_pb2, task_pb2, task_service_pb2
from llorch.identifiers import new_id
from llorch.sdk.caller import SILENCE_S, Caller
from llorch.sdk.convert import (
    count_from_message,
    embeddings_from_message,
    ranking_from_message,
    tokenized_from_message,
)
from llorch.sdk.embeddings import Embeddings
from llorch.sdk.fill import filled
from llorch.sdk.ranking import Ranking
from llorch.sdk.task_options import GenerateOptions, Prompt, TaskOptions, Texts
from llorch.sdk.task_spec import embed_spec, generate_spec, rerank_spec
from llorch.sdk.task_stream import Messages, TaskStream
from llorch.sdk.tokens import TokenCount, Tokenized

_READ_S = 3600.0  # the queue, the load of a large model, and the work; a deadline of the task ends it before
_TOKENS_S = 50.0  # somewhat more than the orchestrator gives to those that it asks


class TaskCalls(Caller):
    def generate(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> TaskStream:
        """Submits and streams. The orchestrator cancels the task two seconds after its last reader left."""
        request = task_service_pb2.GenerateRequest(task=_repeatable(generate_spec(model, prompt, options)))
        return self._task_stream(lambda: self._messages(self._stubs.tasks.Generate, request), outlives=False)

    async def submit(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> str:
        """Submits a task that goes on without a reader, and returns its id for `stream`."""
        request = task_service_pb2.SubmitTaskRequest(task=_repeatable(generate_spec(model, prompt, options)))
        answer: task_service_pb2.SubmitTaskResponse = await self._ask(self._stubs.tasks.SubmitTask, request)
        return answer.task_id

    def stream(self, task_id: str, *, after: str = "") -> TaskStream:
        """The events of a task from its beginning, or after the cursor of an event."""
        filled(task_service_pb2.StreamTaskRequest, task_id=task_id, after=after)  # raises what is wrong with them
        return self._task_stream(lambda: self._open_again(task_id, after), task_id=task_id, after=after)

    async def cancel(self, task_id: str) -> bool:
        """Whether this call cancelled it; False if it had ended before, or is unknown."""
        request = filled(task_service_pb2.CancelTaskRequest, task_id=task_id)
        answer: task_service_pb2.CancelTaskResponse = await self._ask(self._stubs.tasks.CancelTask, request)
        return answer.outcome == cancel_pb2.CANCEL_OUTCOME_CANCELLED

    async def embed(self, model: str, inputs: Texts, **options: Unpack[TaskOptions]) -> Embeddings:
        """Turns texts into vectors. Waits in the queue like any task; leaving the call cancels it."""
        request = task_service_pb2.EmbedRequest(task=embed_spec(model, inputs, options))
        answer: task_service_pb2.EmbedResponse = await self._ask(self._stubs.tasks.Embed, request, timeout_s=_READ_S)
        return embeddings_from_message(answer)

    async def rerank(
        self, model: str, query: str, documents: Texts, *, top_n: int | None = None, **options: Unpack[TaskOptions]
    ) -> Ranking:
        """Orders documents by how well they answer a query; `top_n` of them, or all. Otherwise as `embed`."""
        request = task_service_pb2.RerankRequest(task=rerank_spec(model, query, documents, top_n, options))
        answer: task_service_pb2.RerankResponse = await self._ask(self._stubs.tasks.Rerank, request, timeout_s=_READ_S)
        return ranking_from_message(answer)

    async def count_tokens(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> TokenCount:
        """Tokens of the prompt that `generate` with the same arguments would have. Nothing is loaded for it."""
        return await self._count(generate_spec(model, prompt, options))

    async def count_embed_tokens(self, model: str, inputs: Texts) -> TokenCount:
        """Tokens of all texts that `embed` would turn into vectors."""
        return await self._count(embed_spec(model, inputs, {}))

    async def tokenize(
        self,
        model: str,
        text: str,
        *,
        control_tokens: bool = False,
        add_special: bool = True,
        with_pieces: bool = False,
    ) -> Tokenized:
        """The tokens of a text: by default those of a plain prompt, as `raw=True` makes one. Nothing is loaded for it.

        With `control_tokens` the control tokens that it spells out are such. Without `add_special` no token that begins
        prompts comes before it. With `with_pieces` the bytes of each token are answered, too.
        """
        request = filled(
            task_service_pb2.TokenizeRequest,
            model=model,
            text=text,
            control_tokens=control_tokens,
            add_special=add_special,
            with_pieces=with_pieces,
        )
        answer: task_service_pb2.TokenizeResponse = await self._ask(
            self._stubs.tasks.Tokenize, request, timeout_s=_TOKENS_S
        )
        return tokenized_from_message(answer)

    async def task(self, task_id: str) -> task_pb2.Task:
        """What is known of a task."""
        request = filled(task_service_pb2.GetTaskRequest, task_id=task_id)
        answer: task_service_pb2.GetTaskResponse = await self._ask(self._stubs.tasks.GetTask, request)
        return answer.task

    async def tasks(
        self, state: "task_pb2.TaskState.ValueType" = task_pb2.TASK_STATE_UNSPECIFIED
    ) -> list[task_pb2.Task]:
        """The tasks that are kept, newest first; only those in a state, if one is given."""
        request = filled(task_service_pb2.ListTasksRequest, state=state)
        return await self._all_pages(self._stubs.tasks.ListTasks, request, lambda page: page.tasks)

    async def _count(self, spec: task_pb2.TaskSpec) -> TokenCount:
        request = task_service_pb2.CountTokensRequest(task=spec)
        answer: task_service_pb2.CountTokensResponse = await self._ask(
            self._stubs.tasks.CountTokens, request, timeout_s=_TOKENS_S
        )
        return count_from_message(answer)

    def _task_stream(
        self, begin: Callable[[], Messages], *, outlives: bool = True, task_id: str = "", after: str = ""
    ) -> TaskStream:
        return TaskStream(
            begin,
            self._open_again,
            self._explained,
            self._reach,
            reconnect_for_s=self._reconnect_for_s,
            outlives=outlives,
            task_id=task_id,
            after=after,
        )

    def _open_again(self, task_id: str, cursor: str) -> Messages:
        request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=cursor)
        return self._messages(self._stubs.tasks.StreamTask, request)

    def _messages(self, method: Any, request: Any) -> Messages:
        return self._open_stream(method, request, idle_timeout_s=SILENCE_S)


def _repeatable(spec: task_pb2.TaskSpec) -> task_pb2.TaskSpec:
    """With an id of the request, so that a call that is repeated is the same task."""
    spec.request_id = spec.request_id or new_id("client")
    return spec
