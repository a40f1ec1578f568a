"""The ports on which workers of this node listen, so that the owner can open them in a firewall."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from llorch.errors import FailedPrecondition, Reason, invalid_field
from llorch.ports import is_free

ANY = "any"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Both ends belong to it."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_worker_ports(text: str) -> PortRange | None:
    """`9300-9399`, or `any`, which is None: the system chooses. Raises `InvalidArgument`."""
    if text == ANY:
        return None
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
        raise invalid_field("worker_ports", f'"{text}" is no range of ports like 9300-9399, and not "{ANY}"')
    return PortRange(int(found[1]), int(found[2]))


class PortChooser:
    """Goes round: a port that was just given back is the last one to be given out again."""

    def __init__(self, ports: PortRange | None) -> None:
        self._ports = ports
        self._next = ports.first if ports else 0

    def choose(self, host: str, in_use: Collection[int]) -> int:
        """A port that is free on `host` now and not in `in_use`; 0 where the system chooses.

        Raises `FailedPrecondition` where the whole range is taken.
        """
        if self._ports is None:
            return 0
        for port in self._round():
            if port not in in_use and is_free(host, port):
                self._next = port + 1
                return port
        raise FailedPrecondition(
            Reason.INVALID_FIELD,
            f"all ports of worker_ports ({self._ports}) are taken on this node; set a wider range there, or "
            f'"{ANY}" in the section [pool_manager]',
        )

    def _round(self) -> Iterator[int]:
        assert self._ports is not None  # the caller looked
        return chain(range(self._next, self._ports.last + 1), range(self._ports.first, self._next))
