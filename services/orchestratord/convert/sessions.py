"""Sessions: their budgets as clients give them, and what they are shown of them."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import session_pb2
from llorch.options.task import SESSION_BUDGET
from orchestratord.convert.option_checks import check_options
from orchestratord.core.facts.sessions import Budget
from orchestratord.views.sessions import SessionView


def to_budget(budget: session_pb2.SessionBudget) -> Budget:
    check_options("session_budget", SESSION_BUDGET, budget)
    return Budget(**{field.name: value for field, value in budget.ListFields()})


def to_proto(view: SessionView, wall: datetime) -> session_pb2.Session:
    """`wall` is now."""
    session = view.session
    expire_time = Timestamp()
    expire_time.FromDatetime(wall + timedelta(seconds=view.expires_in_s))
    return session_pb2.Session(
        session_id=session.session_id,
        app=session.app,
        model=session.model,
        turns=session.turns,
        tokens=session.tokens,
        worker_id=view.worker_id,
        kv_warm_tokens=view.warm_tokens,
        expire_time=expire_time,
        budget=_budget(session.budget),
        busy_ms=session.busy_ms,
    )


def _budget(budget: Budget) -> session_pb2.SessionBudget | None:
    if budget == Budget():
        return None
    return session_pb2.SessionBudget(turns=budget.turns, tokens=budget.tokens, busy_ms=budget.busy_ms)
