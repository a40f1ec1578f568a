"""How threads of one process take turns.

Python's interpreter lets a thread go on for 5 ms while another one wants to. The event loop of a daemon must not wait
so long for a thread that works beside it, nor the thread that writes to the database for the loop, which it would do
after each statement.
"""

import sys

_TURN_S = 0.001


def take_short_turns() -> None:
    """Once in a process."""
    sys.setswitchinterval(_TURN_S)
