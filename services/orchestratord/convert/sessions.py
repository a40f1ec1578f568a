"""Sessions: their budgets as clients give them, and what they are shown of them."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import session_pb2
from llorch.options.task import SESSION_BUDGET
from orchestratord.convert.option_checks import check_options
from orchestratord.core.facts.sessions import Budget, Session
from orchestratord.core.state import BrainState


def to_budget(budget: session_pb2.SessionBudget) -> Budget:
    check_options("session_budget", SESSION_BUDGET, budget)
    return Budget(**{field.name: value for field, value in budget.ListFields()})


def to_proto(session: Session, state: BrainState, now: float, wall: datetime) -> session_pb2.Session:
    """`now` is the brain's clock, `wall` the same moment for people."""
    expire_time = Timestamp()
    expire_time.FromDatetime(wall + timedelta(seconds=state.sessions.expires_at(session) - now))
    is_warm = session.worker_id in state.fleet.workers
    return session_pb2.Session(
        session_id=session.session_id,
        app=session.app,
        model=session.model,
        turns=session.turns,
        tokens=session.tokens,
        worker_id=session.worker_id if is_warm else "",
        kv_warm_tokens=session.warm_tokens if is_warm else 0,
        expire_time=expire_time,
        budget=_budget(session.budget),
        busy_ms=session.busy_ms,
    )


def _budget(budget: Budget) -> session_pb2.SessionBudget | None:
    if budget == Budget():
        return None
    return session_pb2.SessionBudget(turns=budget.turns, tokens=budget.tokens, busy_ms=budget.busy_ms)
