from orchestratord.core.facts.timers import TimerKind, Timers


def due(timers: Timers, now: float) -> list[tuple[TimerKind, str]]:
    return list(timers.due(now))


def test_timers_come_in_the_order_of_their_times() -> None:
    timers = Timers()
    timers.at(3, TimerKind.DEADLINE, "a")
    timers.at(1, TimerKind.RETENTION, "a")
    timers.at(2, TimerKind.DEADLINE, "b")
    assert due(timers, 2.5) == [(TimerKind.RETENTION, "a"), (TimerKind.DEADLINE, "b")]
    assert due(timers, 9) == [(TimerKind.DEADLINE, "a")]
    assert len(timers) == 0


def test_a_later_call_for_the_same_takes_the_place_of_an_earlier_one() -> None:
    timers = Timers()
    timers.at(1, TimerKind.SESSION, "s")
    timers.at(5, TimerKind.SESSION, "s")
    assert due(timers, 4) == []
    timers.at(4.5, TimerKind.SESSION, "s")
    assert due(timers, 4.5) == [(TimerKind.SESSION, "s")]
    assert due(timers, 9) == []


def test_a_cancelled_timer_never_comes_and_others_of_its_subject_do() -> None:
    timers = Timers()
    timers.at(1, TimerKind.DEADLINE, "a")
    timers.at(1, TimerKind.RETENTION, "a")
    timers.cancel("a", TimerKind.DEADLINE, TimerKind.LATEST_START)
    assert due(timers, 2) == [(TimerKind.RETENTION, "a")]


def test_what_was_cancelled_takes_no_room() -> None:
    timers = Timers()
    for number in range(1000):
        timers.at(1e9, TimerKind.DEADLINE, f"task-{number}")
        timers.cancel(f"task-{number}", TimerKind.DEADLINE)
        timers.at(1e9, TimerKind.SESSION, "always the same")
    assert len(timers) == 1
    assert len(timers._heap) <= 32


def test_a_timer_that_is_set_while_others_come_is_not_lost() -> None:
    timers = Timers()
    for number in range(100):
        timers.at(number, TimerKind.DEADLINE, f"task-{number}")
    seen = 0
    for _, subject in timers.due(1000):
        seen += 1
        timers.cancel(subject, TimerKind.RETENTION)
        if subject == "task-99":
            timers.at(500, TimerKind.RETENTION, "last")
    assert seen == 101
