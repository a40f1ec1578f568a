"""What a client has been told of a task, and so what may still become of its stream. Pure."""

from enum import Enum, auto

from llama_orch.v2 import task_event_pb2


class View(Enum):
    """What a client sees of a task that is not done."""

    EVENTS = auto()
    """Everything, the task's id first."""
    PIECES = auto()
    """Its output, and nothing before that."""
    WHOLE = auto()
    """Nothing."""


class Told:
    """`after`: the cursor up to which the client has been told of the task before.

    `cursor` is that of the last event that is its client's: what was handed on, or is kept to be handed on.
    """

    def __init__(self, view: View, after: str = "") -> None:
        self.task_id = ""
        self.cursor = after
        self.lives = 1
        """One more each time that the output begins anew."""
        self.is_over = False
        self._view = view
        self._knows_task = False
        self._has_output = bool(after)
        self._has_started = False
        self._place: tuple[int, str] | None = None

    def note(self, event: task_event_pb2.TaskEvent) -> bool:
        """Whether it is news. What a reader that comes back is told first, the client has heard."""
        self.task_id = event.task_id or self.task_id
        if not self._is_news(event):
            return False
        self.cursor = event.cursor or self.cursor
        return True

    @property
    def may_start_over(self) -> bool:
        """The client has seen no output."""
        return self._view is View.WHOLE or not self._has_output

    @property
    def may_be_another(self) -> bool:
        """The client has seen nothing that another task in its place would contradict."""
        return self.may_start_over and (self._view is not View.EVENTS or not self._knows_task)

    def start_over(self) -> None:
        """The same task from its beginning. A client that sees all events is told only once that it started."""
        self.lives += 1
        self.cursor = ""
        self._has_output = False
        self._has_started = self._view is View.EVENTS and self._has_started
        self._place = None

    def become_another(self) -> None:
        """Another task in its place."""
        self.start_over()
        self.task_id = ""

    def _is_news(self, event: task_event_pb2.TaskEvent) -> bool:
        kind = event.WhichOneof("event")
        if kind == "tokens":
            self._has_output = True
        elif kind == "started":
            self._knows_task = True
            is_first, self._has_started = not self._has_started, True
            return is_first
        elif kind == "placed":
            before, self._place = self._place, (event.placed.attempt, event.placed.worker_id)
            return self._place != before
        elif kind in ("end", "error"):
            self.is_over = True
        return True
