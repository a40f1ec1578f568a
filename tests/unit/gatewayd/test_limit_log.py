"""Which limits clients meet, in few lines."""

import pytest

from gatewayd.http import limit_log
from gatewayd.http.limit_log import TOLD_EVERY_S, LimitLog


def test_a_limit_is_told_at_once_and_then_once_a_minute_with_how_often_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []

    class Log:
        def warning(self, event: str, *, limit: str, times: int, **_: object) -> None:
            assert event == "limit_reached"
            told.append((limit, times))

    monkeypatch.setattr(limit_log, "_log", Log())
    now = 0.0
    log = LimitLog(lambda: now)
    for second in range(int(TOLD_EVERY_S)):
        now = float(second)
        log.reached("max_requests", "10.0.0.1")
        log.reached("max_requests", "10.0.0.1")
    log.reached("max_per_address", "10.0.0.1")
    now = TOLD_EVERY_S
    log.reached("max_requests", "10.0.0.1")
    assert told == [("max_requests", 1), ("max_per_address", 1), ("max_requests", 2 * int(TOLD_EVERY_S))]
