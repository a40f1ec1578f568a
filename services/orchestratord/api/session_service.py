"""SessionService: sessions can be read, listed and ended. They begin when a task first names them."""

from typing import Any

from llama_orch.v2 import session_pb2
from llama_orch.v2 import session_service_pb2 as pb2
from llorch.clock import Clock
from llorch.identifiers import check_id
from llorch.rpc.call_context import current_call
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.convert import sessions
from orchestratord.core import events
from orchestratord.core.facts.sessions import Session
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.views import sessions as view_sessions


class SessionService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["SessionService"]):
    """An app sees its own sessions; a caller that is no app sees all of them."""

    def __init__(self, owner: BrainOwner, clock: Clock) -> None:
        self._owner = owner
        self._clock = clock

    async def GetSession(self, request: pb2.GetSessionRequest, context: Any) -> pb2.GetSessionResponse:
        return pb2.GetSessionResponse(session=self._shown(self._find(request.session_id)))

    async def ListSessions(self, request: pb2.ListSessionsRequest, context: Any) -> pb2.ListSessionsResponse:
        app = current_call().app
        seen = [session for session in self._owner.state.sessions.all() if app in ("", session.app)]
        page, following = page_of(seen, _order, request.page_size, request.page_token)
        return pb2.ListSessionsResponse(sessions=[self._shown(session) for session in page], next_page_token=following)

    async def DeleteSession(self, request: pb2.DeleteSessionRequest, context: Any) -> pb2.DeleteSessionResponse:
        session = self._find(request.session_id)
        self._owner.ask(events.SessionDeleted(session.app, session.session_id))
        return pb2.DeleteSessionResponse()

    def _find(self, session_id: str) -> Session:
        """Apps may use the same ids. A caller that is no app gets its own, else that of the first app with one."""
        check_id(session_id, "session_id")
        app, known = current_call().app, self._owner.state.sessions
        if app == "" and known.find("", session_id) is None:
            others = (session for session in known.all() if session.session_id == session_id)
            if found := next(others, None):
                return found
        return known.get(app, session_id)

    def _shown(self, session: Session) -> session_pb2.Session:
        view = view_sessions.view(self._owner.state, session, self._owner.now())
        return sessions.to_proto(view, self._clock.wall())


def _order(session: Session) -> str:
    return f"{session.session_id} {session.app}"
