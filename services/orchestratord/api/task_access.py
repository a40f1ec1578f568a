"""What a caller may do with tasks, whichever of the services it calls."""

import hashlib
import secrets

from llama_orch.v2 import task_pb2
from llorch.errors import invalid_field
from llorch.identifiers import new_id
from llorch.rpc.call_context import current_call
from orchestratord.api.prompt_heads import to_head
from orchestratord.api.task_metrics import TaskMetrics
from orchestratord.convert import tasks
from orchestratord.core import events
from orchestratord.core.facts.task import Task
from orchestratord.core.facts.work import Work
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.task_reader import AttachedReader, TaskReader
from orchestratord.runtime.task_streams import TaskStreams


class TaskAccess:
    def __init__(self, owner: BrainOwner, streams: TaskStreams) -> None:
        self._owner = owner
        self._streams = streams

    def submit(self, spec: task_pb2.TaskSpec, *, durable: bool, work: Work = Work.GENERATE) -> Task:
        """Admitted, or the same task as before if the client repeats its request_id."""
        request = tasks.to_request(
            spec,
            work=work,
            app=current_call().app,
            task_id=new_id("task"),
            correlation_id=current_call().correlation_id,
            durable=durable,
            content_digest=digest_of(spec, durable=durable),
            seed=secrets.randbits(63),
        )
        return self._owner.ask(events.TaskSubmitted(request, to_head(spec)))

    def find(self, task_id: str) -> Task:
        """A task that the caller may see."""
        check_task_id(task_id)
        return self._owner.state.task_seen_by(current_call().app, task_id)

    def attach(self, task_id: str, after: str) -> AttachedReader:
        """A reader of such a task, that goes on after the cursor `after`, or begins where that is empty."""
        task = self.find(task_id)
        stream = self._streams.get(task_id)
        now = self._owner.now()
        reader = TaskReader(stream, after, now, TaskMetrics(self._owner, task, stream.log, now).take)
        self._owner.ask(events.ReaderAttached(task_id))

        def leave(may_return: bool) -> None:
            self._owner.post(events.ReaderLeft(task_id, may_return))

        return AttachedReader(reader, leave, current_call().correlation_id)


def digest_of(spec: task_pb2.TaskSpec, *, durable: bool) -> str:
    """Whether the task outlives its reader is part of the request, so a repeated request_id does not change it."""
    digest = hashlib.sha256(spec.SerializeToString(deterministic=True))
    digest.update(bytes([durable]))
    return digest.hexdigest()


def check_task_id(task_id: str) -> None:
    if not task_id:
        raise invalid_field("task_id", "must not be empty; use the id that the submission answered")
