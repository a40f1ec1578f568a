"""When a worker's engine counts as stuck. Pure.

The process of a stuck engine lives, answers and even sends frames, but none of its runs goes on any more.
"""

from dataclasses import dataclass

_OWN_STALL_S = 10.0  # between two looks: this process stood still, so the time says nothing about the worker


@dataclass(frozen=True, slots=True)
class EngineSigns:
    """`work_done` grows with every step and every token, of prompts too; `decoding` runs wait for it to grow.
    `makes_tokens`: it has a rate of tokens.
    """

    decoding: int
    work_done: int
    makes_tokens: bool = False


class StallWatch:
    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._work_done = -1
        self._moved_at = 0.0
        self._answered_at = 0.0
        self._looked_at: float | None = None

    @property
    def silent_s(self) -> float:
        """How long it had not answered at the last look."""
        return 0.0 if self._looked_at is None else self._looked_at - self._answered_at

    def look(self, signs: EngineSigns | None, now_s: float) -> str | None:
        """What is wrong, in words that follow "it was ended:", or None. `signs` None: the worker did not answer."""
        if self._looked_at is None or now_s - self._looked_at > _OWN_STALL_S:
            self._moved_at = self._answered_at = now_s
        self._looked_at = now_s
        if signs is None:
            return self._after(now_s - self._answered_at, "did not answer")
        self._answered_at = now_s
        if not signs.decoding or signs.work_done != self._work_done:
            self._moved_at, self._work_done = now_s, signs.work_done
        return self._after(now_s - self._moved_at, f"made no step although {signs.decoding} run(s) waited for one")

    def _after(self, silent_s: float, what: str) -> str | None:
        return f"its engine {what} for {silent_s:.0f} s" if silent_s >= self._limit_s else None
