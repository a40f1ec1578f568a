"""The one owner of the brain. Reading its state to report it is fine; to act on it, ask here."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llorch.clock import Clock
from llorch.errors import LlorchError
from orchestratord.core.brain import Brain
from orchestratord.core.effects import Effect
from orchestratord.core.events import Command, Event
from orchestratord.core.state import BrainState

Answer = TypeVar("Answer")

Perform = Callable[[Effect], None]
Observe = Callable[[Event, Sequence[Effect], LlorchError | None, bool], None]
"""Called with a handled event: its effects, or the error that refused it; whether a caller asked for it."""


class BrainOwner:
    """Feeds events to the brain, one after the other, on the event loop's thread.

    `perform` starts an effect and never waits for it; what comes of it is posted later. An event that is posted while
    another is handled waits its turn, so the brain never sees half of one.
    """

    def __init__(self, brain: Brain, clock: Clock) -> None:
        self._brain = brain
        self._clock = clock
        self._perform: Perform | None = None
        self._observers: list[Observe] = []
        self._pending: deque[Event] = deque()
        self._is_handling = False

    def connect(self, perform: Perform) -> None:
        """Once, before the first event: `perform` carries out the effects."""
        self._perform = perform

    def watch(self, observe: Observe) -> None:
        """For observers that count and note down. They see every event and change nothing."""
        self._observers.append(observe)

    @property
    def state(self) -> BrainState:
        """For reports only."""
        return self._brain.state

    def now(self) -> float:
        return self._clock.monotonic()

    def post(self, event: Event) -> None:
        """Something happened. The brain refuses no such event, so this raises nothing but bugs."""
        self._pending.append(event)
        if not self._is_handling:
            self._handle_pending()

    def ask(self, command: Command[Answer]) -> Answer:
        """A caller wants something: done when this returns, or refused by an error of `llorch.errors`.

        The answer is what held when the command was handled. Look for no more in the state: it may have changed since.
        """
        if self._is_handling:
            raise RuntimeError("a command came from inside of an effect; effects post what came of them")
        answer: Answer = self._handle(command, asked=True)
        self._handle_pending()
        return answer

    def _handle_pending(self) -> None:
        while self._pending:
            self._handle(self._pending.popleft(), asked=False)

    def _handle(self, event: Event, *, asked: bool) -> Any:
        assert self._perform is not None
        self._is_handling = True
        try:
            handled = self._brain.handle(event, self.now())
            self._tell(event, handled.effects, None, asked)
            for effect in handled.effects:
                self._perform(effect)
        except LlorchError as error:
            self._tell(event, (), error, asked)
            raise
        else:
            return handled.answer
        finally:
            self._is_handling = False

    def _tell(self, event: Event, effects: Sequence[Effect], refusal: LlorchError | None, asked: bool) -> None:
        for observe in self._observers:
            observe(event, effects, refusal, asked)
