"""Calls about where models and apps run, and why."""

from typing import Unpack

from llama_orch.v2 import assignment_pb2, decision_pb2, placement_service_pb2, task_pb2
from llorch.options.assignment import AssignmentSettings
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled
from llorch.sdk.task_options import PlacementWishes, Texts


class PlacementCalls(Caller):
    async def assign(
        self,
        targets: Texts,
        mode: "assignment_pb2.AssignmentMode.ValueType",
        *,
        model: str = "",
        app: str = "",
        **settings: Unpack[AssignmentSettings],
    ) -> assignment_pb2.Assignment:
        """Says where a model, an app, or a model of an app goes; refused with the rule that it contradicts.

        Targets are places as people name them: `garage`, `garage/3090`, `garage/3090+3060`, or a pool.
        """
        rule = filled(assignment_pb2.Assignment, targets=targets, mode=mode, model=model, app=app, **settings)
        request = placement_service_pb2.SetAssignmentRequest(assignment=rule)
        answer: placement_service_pb2.SetAssignmentResponse = await self._call(
            self._stubs.placement.SetAssignment, request
        )
        return answer.assignment

    async def assignments(self) -> list[assignment_pb2.Assignment]:
        """All rules, by id, with places by the names that they have now."""
        request = placement_service_pb2.ListAssignmentsRequest()
        return await self._all_pages(self._stubs.placement.ListAssignments, request, lambda page: page.assignments)

    async def unassign(self, assignment_id: str) -> None:
        """Takes a rule away."""
        request = filled(placement_service_pb2.DeleteAssignmentRequest, assignment_id=assignment_id)
        await self._call(self._stubs.placement.DeleteAssignment, request)

    async def explain(
        self,
        model: str = "",
        *,
        task_id: str = "",
        app: str = "",
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        placement: PlacementWishes | task_pb2.PlacementOverrides | None = None,
    ) -> decision_pb2.DecisionLog:
        """Where such a task would go now, and why; or, with its id and nothing else, one that has not ended. Changes
        nothing.
        """
        request = filled(
            placement_service_pb2.ExplainPlacementRequest,
            model=model,
            app=app,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            placement=placement,
            task_id=task_id,
        )
        answer: placement_service_pb2.ExplainPlacementResponse = await self._ask(
            self._stubs.placement.ExplainPlacement, request
        )
        return answer.decision

    async def decisions(self, *, model: str = "", task_id: str = "") -> list[decision_pb2.DecisionLog]:
        """The decisions that are kept, newest first; only those about a model or for a task, if one is given."""
        request = filled(placement_service_pb2.ListDecisionsRequest, model=model, task_id=task_id)
        return await self._all_pages(self._stubs.placement.ListDecisions, request, lambda page: page.decisions)
