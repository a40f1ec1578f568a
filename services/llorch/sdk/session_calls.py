"""Calls about sessions: requests that belong together. A session begins when a task first names it."""

from llama_orch.v2 import session_pb2, session_service_pb2
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled


class SessionCalls(Caller):
    async def sessions(self) -> list[session_pb2.Session]:
        """All sessions, by id; those of the app alone where an app's key is used."""
        request = session_service_pb2.ListSessionsRequest()
        return await self._all_pages(self._stubs.sessions.ListSessions, request, lambda page: page.sessions)

    async def session(self, session_id: str) -> session_pb2.Session:
        """What a session has used, what it may use, and where it is warm."""
        request = filled(session_service_pb2.GetSessionRequest, session_id=session_id)
        answer: session_service_pb2.GetSessionResponse = await self._ask(self._stubs.sessions.GetSession, request)
        return answer.session

    async def delete_session(self, session_id: str) -> None:
        """Ends a session; its tasks go on."""
        request = filled(session_service_pb2.DeleteSessionRequest, session_id=session_id)
        await self._call(self._stubs.sessions.DeleteSession, request)
