"""What one app uses: tasks at once, and tokens a minute."""

from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(slots=True)
class Usage:
    """`debt` are tokens that were used and not paid back yet; every minute pays back what a minute allows."""

    running: int = 0
    debt: float = 0.0
    _at: float = 0.0

    def use(self, tokens: float, per_minute: int, now: float) -> None:
        """Tokens are used, or given back if below 0."""
        self._pay_back(per_minute, now)
        self.debt = max(0.0, self.debt + tokens) if per_minute else 0.0

    def wait_s(self, per_minute: int, now: float) -> float:
        """Time until the tokens of one minute are no longer used up; 0 if they are not."""
        self._pay_back(per_minute, now)
        if not per_minute or self.debt < per_minute:
            return 0.0
        return max(0.001, (self.debt - per_minute) / per_minute * MINUTE_S)

    def _pay_back(self, per_minute: int, now: float) -> None:
        self.debt = max(0.0, self.debt - (now - self._at) / MINUTE_S * per_minute)
        self._at = now
