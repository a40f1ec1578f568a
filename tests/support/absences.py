"""Ways in which a machine, or its card, is away, and how it comes back."""

from enum import StrEnum

from support.free_ports import free_port
from support.machines import Machine


class Away(StrEnum):
    """In an order whose beginning has one of each kind."""

    SHUT_DOWN = "it was shut down"
    DRAINED = "its pool was drained"
    FROZEN = "it froze"
    RELEASED = "its card was released"
    RENAMED = "it comes back under a new name"
    MOVED = "it comes back under a new address"
    CUT_OFF = "its line is down"
    RELEASED_FOR_A_TIME = "its card was released until a time"
    DRAINING = "its pool is being drained, and one task has not ended"
    CRASHED = "its pool manager crashed"
    UNPLUGGED = "it lost its power"


OF_MACHINES = (Away.SHUT_DOWN, Away.FROZEN, Away.MOVED, Away.CUT_OFF, Away.CRASHED, Away.UNPLUGGED)
"""All of the machine is away, and comes back by itself as it was."""


async def leave(machine: Machine, way: Away) -> None:
    match way:
        case Away.SHUT_DOWN:
            await machine.shut_down()
        case Away.CRASHED | Away.RENAMED:
            await machine.manager.kill()
        case Away.UNPLUGGED | Away.MOVED:
            await machine.lose_power()
        case Away.FROZEN:
            machine.freeze()
        case Away.CUT_OFF:
            machine.line.hold()
        case _:
            raise AssertionError(f"not a matter of the machine alone: {way}")


async def come_back(machine: Machine, way: Away) -> None:
    match way:
        case Away.FROZEN:
            machine.thaw()
        case Away.CUT_OFF:
            machine.line.release()
        case Away.MOVED:
            machine.manager.address = f"127.0.0.1:{free_port()}"
            await machine.manager.start()
        case _:
            await machine.manager.start()
