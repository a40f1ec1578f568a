"""What sessions are called on the disks of GPU hosts."""

from itertools import permutations

from llorch.saved_sessions import check_saved_session
from orchestratord.runtime.session_names import saved_session_name


def test_a_name_tells_nothing_and_is_the_same_each_time() -> None:
    name = saved_session_name("cluster", "chat-ui", "colours")
    assert check_saved_session(name, "saved_session") == name
    assert saved_session_name("cluster", "chat-ui", "colours") == name


def test_no_two_sessions_are_called_the_same() -> None:
    parts = ["", "a", "b", "a b", "b c", "c", "a.b", "a:b"]
    of_three = {(*three,) for three in permutations(parts, 3) if three[2]} | {(it, it, it) for it in parts[1:]}
    assert len({saved_session_name(*three) for three in of_three}) == len(of_three)
    assert saved_session_name("x", "a b", "c") != saved_session_name("x", "a", "b c")


def test_a_task_of_no_session_has_no_name() -> None:
    assert saved_session_name("cluster", "chat-ui", "") == ""
