"""PlacementService: which tasks and models go where, and why."""

from collections.abc import Iterable
from typing import Any

from llama_orch.v2 import assignment_pb2
from llama_orch.v2 import placement_service_pb2 as pb2
from llorch.clock import Clock
from llorch.errors import PermissionDenied, Reason, invalid_field
from llorch.identifiers import check_id
from llorch.rpc.call_context import current_call
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.convert import assignments, decisions
from orchestratord.core import events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.decision import DecisionRecord
from orchestratord.core.placement.explain import explain, explain_task
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.views import assignments as view_assignments
from orchestratord.views import decisions as view_decisions


class PlacementService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["PlacementService"]):
    def __init__(self, owner: BrainOwner, changes: KeptChanges, clock: Clock) -> None:
        self._owner = owner
        self._changes = changes
        self._clock = clock

    async def SetAssignment(self, request: pb2.SetAssignmentRequest, context: Any) -> pb2.SetAssignmentResponse:
        draft = assignments.to_draft(request.assignment)
        rule = await self._changes.ask(events.AssignmentSet(draft, at_ms=round(self._clock.wall().timestamp() * 1000)))
        (shown,) = self._shown([rule])
        return pb2.SetAssignmentResponse(assignment=shown)

    async def ListAssignments(self, request: pb2.ListAssignmentsRequest, context: Any) -> pb2.ListAssignmentsResponse:
        rules = self._owner.state.assignments.all()
        page, following = page_of(rules, lambda rule: rule.assignment_id, request.page_size, request.page_token)
        return pb2.ListAssignmentsResponse(assignments=self._shown(page), next_page_token=following)

    async def DeleteAssignment(
        self, request: pb2.DeleteAssignmentRequest, context: Any
    ) -> pb2.DeleteAssignmentResponse:
        await self._changes.ask(events.AssignmentDeleted(check_id(request.assignment_id, "assignment_id")))
        return pb2.DeleteAssignmentResponse()

    async def ExplainPlacement(
        self, request: pb2.ExplainPlacementRequest, context: Any
    ) -> pb2.ExplainPlacementResponse:
        record = self._of_task(request) if request.task_id else self._of_model(request)
        return pb2.ExplainPlacementResponse(decision=decisions.to_proto(view_decisions.view(record, is_dry_run=True)))

    def _of_task(self, request: pb2.ExplainPlacementRequest) -> DecisionRecord:
        task = self._owner.state.task_seen_by(current_call().app, request.task_id)
        if len(request.ListFields()) > 1:
            raise invalid_field("task_id", "goes alone; what the task asks for is known")
        if task.is_finished:
            raise invalid_field(
                "task_id",
                f"task '{request.task_id}' has ended; ListDecisions has what was decided of it "
                f"(`llorch explain --task {request.task_id}`)",
            )
        return explain_task(self._owner.state, task)

    def _of_model(self, request: pb2.ExplainPlacementRequest) -> DecisionRecord:
        if not request.model:
            raise invalid_field("model", "must not be empty; `llorch models` lists the models")
        own = current_call().app
        if own and request.app not in ("", own):
            raise PermissionDenied(
                Reason.NOT_PERMITTED, f"app '{own}' may ask for itself alone, not for '{request.app}'; leave app out"
            )
        return explain(
            self._owner.state,
            request.model,
            request.app or own,
            request.prompt_tokens,
            request.output_tokens,
            assignments.to_wishes(request.placement),
        )

    async def ListDecisions(self, request: pb2.ListDecisionsRequest, context: Any) -> pb2.ListDecisionsResponse:
        own = current_call().app
        wanted = [record for record in self._owner.state.decisions.newest_first() if _is_wanted(record, request)]
        page, following = page_of(wanted, _age_key, request.page_size, request.page_token, newest_first=True)
        return pb2.ListDecisionsResponse(
            decisions=[decisions.to_proto(view_decisions.view(record, app=own)) for record in page],
            next_page_token=following,
        )

    def _shown(self, rules: Iterable[Assignment]) -> list[assignment_pb2.Assignment]:
        return [assignments.to_proto(view) for view in view_assignments.views(self._owner.state, rules)]


def _is_wanted(record: DecisionRecord, request: pb2.ListDecisionsRequest) -> bool:
    return request.model in ("", record.model) and request.task_id in ("", record.task_id)


def _age_key(record: DecisionRecord) -> str:
    return f"{record.at_ms:020d}.{record.decision_id}"
