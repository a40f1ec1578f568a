"""Several hosts on one machine: network namespaces with cables between them that can be pulled. Needs root.

The first host is joined to this machine and to each of the others; addresses are of the network for benchmarks.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network

import pytest

_SECONDS = 10.0
_NETWORK = IPv4Network("198.18.0.0/15")
_CABLES = 16
_PROCESSES = _NETWORK.num_addresses // (4 * _CABLES)
_numbers_in_use: set[int] = set()
"""Of the hosts of this process: a test may have several systems at once."""


@dataclass(frozen=True)
class Host:
    """`prefix` runs a command there. `address` is that under which the first host reaches it, or this machine the first
    one; `first` is where it reaches the first one.
    """

    namespace: str
    address: str
    first: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)


@dataclass
class Cable:
    """Between the first host and another one, `far`; each end has its address."""

    namespace: str
    device: str
    far: str
    addresses: tuple[str, str]

    def hold(self) -> None:
        """Pulled: nothing passes, and neither side is told."""
        _ip("-n", self.namespace, "link", "set", self.device, "down")

    def drop_to_host(self) -> None:
        """What goes to the other host is lost; what comes from there is not."""
        _ip("-n", self.namespace, "route", "replace", "blackhole", f"{self.addresses[1]}/32")

    def drop_from_host(self) -> None:
        _ip("-n", self.far, "route", "replace", "blackhole", f"{self.addresses[0]}/32")

    def release(self) -> None:
        for namespace in (self.namespace, self.far):
            _ip("-n", namespace, "route", "flush", "type", "blackhole")
        _ip("-n", self.namespace, "link", "set", self.device, "up")


def need() -> None:
    """Skips the test where there can be none, and says what to do; in continuous integration that is a failure."""
    if why := _lacks():
        assert not os.environ.get("CI"), why
        pytest.skip(why)


def _lacks() -> str:
    if shutil.which("ip") is None:
        return "network namespaces need the command ip: sudo apt install iproute2"
    return "" if os.geteuid() == 0 else "network namespaces need root: run this test as root"


@contextmanager
def hosts(*names: str) -> Iterator[tuple[dict[str, Host], dict[str, Cable]]]:
    """Hosts, and the cables of all but the first, by name. All are removed at the end, whatever happens."""
    first, *others = names
    found: dict[str, Host] = {}
    cables: dict[str, Cable] = {}
    with ExitStack() as stack:
        numbers = {name: stack.enter_context(_number()) for name in names}
        namespaces = {name: f"llorch-{os.getpid()}-{number}-{name}" for name, number in numbers.items()}
        for namespace in namespaces.values():
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "del", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        found[first] = _join(numbers[first], "", namespaces[first])
        # Before its namespace, which would take it along later.
        stack.callback(_ip, "link", "del", _device(numbers[first], "a"))
        for name in others:
            number = numbers[name]
            found[name] = _join(number, namespaces[first], namespaces[name])
            cables[name] = Cable(namespaces[first], _device(number, "a"), namespaces[name], _addresses(number))
        yield found, cables


@contextmanager
def _number() -> Iterator[int]:
    free = set(range(_CABLES)) - _numbers_in_use
    assert free, f"a process has at most {_CABLES} hosts at once"
    number = min(free)
    _numbers_in_use.add(number)
    try:
        yield number
    finally:
        _numbers_in_use.remove(number)


def _join(number: int, near: str, far: str) -> Host:
    """A cable between two namespaces, of which an empty one is this machine."""
    near_address, far_address = _addresses(number)
    ends = ((near, _device(number, "a"), near_address), (far, _device(number, "b"), far_address))
    at_near = ("-n", near) if near else ()
    _ip(*at_near, "link", "add", ends[0][1], "type", "veth", "peer", "name", ends[1][1], "netns", far)
    for namespace, device, address in ends:
        there = ("-n", namespace) if namespace else ()
        _ip(*there, "addr", "add", f"{address}/30", "dev", device)
        _ip(*there, "link", "set", device, "up")
    return Host(far, far_address, near_address)


def _addresses(number: int) -> tuple[str, str]:
    """Of the two ends of a cable, in a network of their own; other ones than those of another process."""
    network = _NETWORK.network_address + 4 * (_CABLES * (os.getpid() % _PROCESSES) + number)
    return str(network + 1), str(network + 2)


def _device(number: int, end: str) -> str:
    """At most 15 characters, of this process alone."""
    return f"ll{os.getpid()}{end}{number}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(("ip", *arguments), capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
