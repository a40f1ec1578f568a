"""TaskService: tasks come in, and their streams go out."""

from collections.abc import Iterable
from typing import Any

from llama_orch.v2 import cancel_pb2, run_pb2, task_event_pb2, task_pb2, tokens_pb2
from llama_orch.v2 import task_service_pb2 as pb2
from llorch.errors import NotFound
from llorch.rpc.call_context import current_call
from llorch.rpc.slow_reader import write_with_deadline
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.api.task_access import TaskAccess, check_task_id
from orchestratord.convert import tasks, tokens
from orchestratord.convert.readings import to_embed_response, to_rerank_response
from orchestratord.core import events
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.task import Task
from orchestratord.core.facts.work import Work
from orchestratord.core.placement.token_sources import token_sources
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.runtime.token_answers import TokenAnswers
from orchestratord.views import models as view_models
from orchestratord.views import tasks as view_tasks


class TaskService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["TaskService"]):
    """`write_deadline_s`: a reader that does not read for so long is dropped, with its cursor."""

    def __init__(
        self,
        owner: BrainOwner,
        access: TaskAccess,
        streams: TaskStreams,
        effects: EffectRunner,
        write_deadline_s: float,
    ) -> None:
        self._owner = owner
        self._access = access
        self._streams = streams
        self._effects = effects
        self._write_deadline_s = write_deadline_s
        self._tokens = TokenAnswers(owner.state.fleet, effects)

    async def SubmitTask(self, request: pb2.SubmitTaskRequest, context: Any) -> pb2.SubmitTaskResponse:
        task = self._access.submit(request.task, durable=True)
        await self._effects.wait_kept(task.task_id)
        queue = self._owner.state.queue
        waits = task.task_id in queue
        return pb2.SubmitTaskResponse(
            task_id=task.task_id,
            correlation_id=current_call().correlation_id,
            queue_position=queue.before(task.task_id).tasks if waits else 0,
            predicted_start_ms=task.predicted_start_ms if waits else 0,
        )

    async def StreamTask(self, request: pb2.StreamTaskRequest, context: Any) -> None:
        await self._follow(request.task_id, request.after, context, pb2.StreamTaskResponse)

    async def Generate(self, request: pb2.GenerateRequest, context: Any) -> None:
        task = self._access.submit(request.task, durable=False)
        await self._follow(task.task_id, "", context, pb2.GenerateResponse)

    async def Embed(self, request: pb2.EmbedRequest, context: Any) -> pb2.EmbedResponse:
        terminal, reading = await self._read(request.task, Work.EMBED)
        return to_embed_response(terminal, reading)

    async def Rerank(self, request: pb2.RerankRequest, context: Any) -> pb2.RerankResponse:
        terminal, reading = await self._read(request.task, Work.RERANK)
        return to_rerank_response(terminal, reading, request.task.rerank.top_n)

    async def CountTokens(self, request: pb2.CountTokensRequest, context: Any) -> pb2.CountTokensResponse:
        question = tokens.to_count_question(request)
        model, answer = await self._ask_tokens(request.task.model, question)
        if request.task.HasField("embed"):
            return tokens.to_count_response(answer, None)
        context_tokens = view_models.context(self._owner.state, model, answer.context_trained)
        return tokens.to_count_response(answer, context_tokens)

    async def Tokenize(self, request: pb2.TokenizeRequest, context: Any) -> pb2.TokenizeResponse:
        question = tokens.to_text_question(request)
        _, answer = await self._ask_tokens(request.model, question)
        return tokens.to_tokenize_response(answer)

    async def CancelTask(self, request: pb2.CancelTaskRequest, context: Any) -> pb2.CancelTaskResponse:
        check_task_id(request.task_id)
        outcome = self._cancel(request.task_id)
        if outcome != cancel_pb2.CANCEL_OUTCOME_UNKNOWN:  # what is answered holds after a crash too
            await self._effects.wait_end_kept(request.task_id)
        return pb2.CancelTaskResponse(outcome=outcome)

    async def GetTask(self, request: pb2.GetTaskRequest, context: Any) -> pb2.GetTaskResponse:
        return pb2.GetTaskResponse(task=self._shown(self._access.find(request.task_id)))

    async def ListTasks(self, request: pb2.ListTasksRequest, context: Any) -> pb2.ListTasksResponse:
        app = current_call().app
        kept: Iterable[Task] = self._owner.state.tasks.values()
        if app:
            kept = [task for task in kept if task.request.app == app]
        if request.state:
            wanted = tasks.STATES.find(request.state)
            kept = [task for task in kept if view_tasks.state_of(task) is wanted]
        # Ids sort by the time at which they were made.
        page, following = page_of(
            kept, lambda task: task.task_id, request.page_size, request.page_token, newest_first=True
        )
        return pb2.ListTasksResponse(tasks=[self._shown(task) for task in page], next_page_token=following)

    async def _read(self, spec: task_pb2.TaskSpec, work: Work) -> tuple[task_event_pb2.TaskEvent, run_pb2.RunEnd]:
        """A client that disconnects before the task is done cancels it, as with Generate."""
        task_id = self._access.submit(spec, durable=False, work=work).task_id
        stream = self._streams.get(task_id)
        self._owner.ask(events.ReaderAttached(task_id))
        try:
            while (terminal := stream.terminal) is None:
                await stream.changed(stream.revision)
        finally:
            self._owner.post(events.ReaderLeft(task_id))
        reading = stream.reading or run_pb2.RunEnd()
        if not spec.request_id:  # without a request_id the client can't ask for this again
            stream.keep_reading(None)
        return terminal, reading

    async def _ask_tokens(self, name: str, question: tokens_pb2.TokenQuestion) -> tuple[Model, tokens_pb2.TokenAnswer]:
        """Of the model that the caller means by the name. No command: nothing of the state changes by it."""
        state = self._owner.state
        model = state.catalog.get_active(state.apps.model_name(current_call().app, name))
        return model, await self._tokens.ask(model, token_sources(state, model), question)

    async def _follow(
        self,
        task_id: str,
        after: str,
        context: Any,
        response: type[pb2.StreamTaskResponse] | type[pb2.GenerateResponse],
    ) -> None:
        attached = self._access.attach(task_id, after)
        reader, stream = attached.reader, attached.reader.stream
        try:
            while True:
                seen = stream.revision
                for event in reader.take(self._owner.now()):
                    await write_with_deadline(context, response(event=event), self._write_deadline_s)
                if reader.is_done:
                    return
                await stream.changed(seen)
        finally:
            attached.leave(False)

    def _cancel(self, task_id: str) -> "cancel_pb2.CancelOutcome.ValueType":
        try:
            outcome = self._owner.ask(events.TaskCancelled(task_id, current_call().app))
        except NotFound:
            return cancel_pb2.CANCEL_OUTCOME_UNKNOWN
        return tasks.CANCEL_OUTCOMES.to_proto(outcome)

    def _shown(self, task: Task) -> task_pb2.Task:
        stream = self._streams.get(task.task_id)
        shown = view_tasks.view(self._owner.state, task)
        return tasks.to_proto(shown, stream.log, stream.admitted_at, stream.terminal)
