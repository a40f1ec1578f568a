"""Which load holds how much memory of which device. Never over-committed, by construction."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DeviceKey = tuple[str, str]
"""(node_id, device_id)."""


class OverCommit(AssertionError):
    """A reservation was asked for that does not fit; the caller has to look at `available` first."""


@dataclass(slots=True)
class _Returning:
    """Memory of a worker that has ended, until the device shows that it is back.

    Until then the device counts it among the others: `others_before` tells it from what another program takes, and
    `in_others` whether there was such a report yet.
    """

    mib: int
    others_before: int
    until: float
    in_others: bool = False


@dataclass(slots=True)
class _Account:
    """`held_mib` and `promised_mib` are the sums over their tables, kept because they are asked for all the time."""

    total_mib: int = 0
    reserve_mib: int = 0
    others_mib: int = 0
    held: dict[str, int] = field(default_factory=dict)
    held_mib: int = 0
    promised: dict[str, int] = field(default_factory=dict)
    promised_mib: int = 0
    returning: dict[str, _Returning] = field(default_factory=dict)
    others_at_stop: dict[str, int] = field(default_factory=dict)
    """By load whose worker was told to end: what the device counted among the others then."""

    def hold(self, load_id: str, mib: int) -> None:
        self.held_mib += mib - self.held.get(load_id, 0)
        self.held[load_id] = mib

    def let_go(self, load_id: str) -> int:
        self.others_at_stop.pop(load_id, None)
        mib = self.held.pop(load_id)
        self.held_mib -= mib
        return mib

    @property
    def is_empty(self) -> bool:
        is_known = self.total_mib or self.reserve_mib or self.others_mib
        return not (is_known or self.held or self.promised or self.returning)

    @property
    def returning_mib(self) -> int:
        return sum(returning.mib for returning in self.returning.values()) if self.returning else 0


@dataclass(slots=True)
class Ledger:
    """available = total − reserve − others − Σ max(reserved, measured) − returning − promised, per device, in MiB.

    Reservations are made for a set of devices at once or not at all, under the id of the load (the worker's id), and
    released under that id only. A promise keeps memory for a load that waits until workers have left; it is made of
    what is there and of what those will give back. Another program that takes memory lowers `available`, also below
    zero; that is an event to react to, not a fault of the ledger.
    """

    _accounts: dict[DeviceKey, _Account] = field(default_factory=dict)
    _loads: dict[str, tuple[DeviceKey, ...]] = field(default_factory=dict)
    _promises: dict[str, tuple[DeviceKey, ...]] = field(default_factory=dict)
    _returns: set[DeviceKey] = field(default_factory=set)

    def set_device(self, device: DeviceKey, total_mib: int, reserve_mib: int, others_mib: int) -> None:
        """What the device's node reports of it."""
        account = self._accounts.setdefault(device, _Account())
        account.total_mib, account.reserve_mib, account.others_mib = total_mib, reserve_mib, others_mib
        for entry in account.returning.values():
            entry.mib = min(entry.mib, max(0, others_mib - entry.others_before))
            entry.in_others = True

    def forget_device(self, device: DeviceKey) -> None:
        """It is gone; what is held of it stays on the books until it is released."""
        self.set_device(device, 0, 0, 0)
        self._accounts[device].returning.clear()
        self._close_if_empty(device)

    def capacity(self, device: DeviceKey) -> int:
        """The memory for workers if the device had none of them."""
        account = self._accounts.get(device)
        if account is None:
            return 0
        return _capacity(account)

    def held(self, device: DeviceKey) -> int:
        account = self._accounts.get(device)
        return 0 if account is None else account.held_mib

    def returning(self, device: DeviceKey) -> int:
        account = self._accounts.get(device)
        return 0 if account is None else account.returning_mib

    def available(self, device: DeviceKey) -> int:
        """The memory that a load without a promise can have now."""
        account = self._accounts.get(device)
        return 0 if account is None else _free(account) - account.promised_mib

    def room(self, device: DeviceKey) -> tuple[int, int]:
        """`available` and `capacity` at once: a decision asks for both of every device of a fleet."""
        account = self._accounts.get(device)
        if account is None:
            return 0, 0
        if account.returning:
            return _free(account) - account.promised_mib, _capacity(account)
        capacity = account.total_mib - account.reserve_mib - account.others_mib
        return capacity - account.held_mib - account.promised_mib, capacity

    def promise(self, load_id: str, claims: Mapping[DeviceKey, int]) -> None:
        """Keep memory for a load that can't have it yet; `reserve` under the same id redeems it."""
        self._promises[load_id] = tuple(claims)
        for device, mib in claims.items():
            account = self._accounts.setdefault(device, _Account())
            account.promised[load_id] = mib
            account.promised_mib += mib

    def fits(self, load_id: str, claims: Mapping[DeviceKey, int]) -> bool:
        """Whether `reserve` would succeed. Of a load with a promise: whether the memory is there; what is promised to
        others comes of workers that have not left yet.
        """
        accounts = ((self._accounts.get(device, _Account()), mib) for device, mib in claims.items())
        has_promise = load_id in self._promises
        return all(mib <= _free(account) - (0 if has_promise else account.promised_mib) for account, mib in accounts)

    def reserve(self, load_id: str, claims: Mapping[DeviceKey, int]) -> None:
        if load_id in self._loads:
            raise OverCommit(f"load {load_id} has reserved already")
        if not self.fits(load_id, claims):
            there = {device: self.available(device) for device in claims}
            raise OverCommit(f"load {load_id} asks for {dict(claims)} MiB; available are {there}")
        self.withdraw_promise(load_id)
        self.charge(load_id, claims)

    def charge(self, load_id: str, claims: Mapping[DeviceKey, int]) -> None:
        """Book a worker that was found running, whether it fits or not."""
        self._loads[load_id] = tuple(claims)
        for device, mib in claims.items():
            self._accounts.setdefault(device, _Account()).hold(load_id, mib)

    def measured(self, load_id: str, measurements: Mapping[DeviceKey, int]) -> None:
        """A load came to an end and takes this much: the larger of claim and measurement counts from now on."""
        for device in self._loads.get(load_id, ()):
            account = self._accounts[device]
            account.hold(load_id, max(account.held[load_id], measurements.get(device, 0)))

    def move(self, load_id: str, to: Mapping[DeviceKey, DeviceKey]) -> None:
        """The devices that the load holds are called otherwise now."""
        held = self._loads.pop(load_id, ())
        self.charge(load_id, {to.get(device, device): self._accounts[device].let_go(load_id) for device in held})
        for device in held:
            self._close_if_empty(device)

    def release(self, load_id: str) -> None:
        """The load's memory is free, and no promise is kept for it.

        Idempotent; an unknown id releases nothing, so a late release can't free what another load holds.
        """
        self.withdraw_promise(load_id)
        for device in self._loads.pop(load_id, ()):
            self._accounts[device].let_go(load_id)
            self._close_if_empty(device)

    def begins_to_end(self, load_id: str) -> None:
        """Its worker was told to end: soon its device may count its memory among the others for a moment."""
        for device in self._loads.get(load_id, ()):
            account = self._accounts[device]
            account.others_at_stop.setdefault(load_id, account.others_mib)

    def release_ended(self, load_id: str, until: float) -> bool:
        """The worker has ended as it was told to, and its memory is back. Where the last report of its device was made
        before that, and counts it among the others, it is free by the next one, or after `until`: then True.
        """
        late: dict[DeviceKey, _Returning] = {}
        for device in self._loads.get(load_id, ()):
            account = self._accounts[device]
            before = account.others_at_stop.get(load_id, account.others_mib)
            mib = min(account.held[load_id], account.others_mib - before)
            if mib > 0:
                late[device] = _Returning(mib, before, until, in_others=True)
        self.release(load_id)
        for device, entry in late.items():
            self._accounts[device].returning[load_id] = entry
            self._returns.add(device)
        return bool(late)

    def release_when_back(self, load_id: str, until: float) -> None:
        """The worker has ended by itself: its memory counts again once its device shows it free, or after `until`."""
        self.withdraw_promise(load_id)
        for device in self._loads.pop(load_id, ()):
            account = self._accounts[device]
            account.returning[load_id] = _Returning(account.let_go(load_id), account.others_mib, until)
            self._returns.add(device)

    def withdraw_promise(self, load_id: str) -> None:
        for device in self._promises.pop(load_id, ()):
            account = self._accounts[device]
            account.promised_mib -= account.promised.pop(load_id)
            self._close_if_empty(device)

    def expire_returns(self, now: float) -> bool:
        """The wait for memory is bounded. What is not back then counts as another program's; what no report has shown
        in use counts as free, and then the result is True.
        """
        if not self._returns:
            return False
        freed = False
        for device in sorted(self._returns):
            account = self._accounts.get(device)
            returning = {} if account is None else account.returning
            for load_id in [load_id for load_id, entry in returning.items() if now >= entry.until]:
                freed |= not returning.pop(load_id).in_others
            if not returning:
                self._returns.discard(device)
                self._close_if_empty(device)
        return freed

    def _close_if_empty(self, device: DeviceKey) -> None:
        """Of a device that is gone, once nothing is on its books."""
        account = self._accounts.get(device)
        if account is not None and account.is_empty:
            del self._accounts[device]

    def held_by(self, load_id: str, device: DeviceKey) -> int:
        account = self._accounts.get(device)
        return 0 if account is None else account.held.get(load_id, 0)

    def loads_on(self, device: DeviceKey) -> list[str]:
        account = self._accounts.get(device)
        return [] if account is None else sorted(account.held)


def _capacity(account: _Account) -> int:
    others_mib = account.others_mib
    if account.returning:
        others_mib -= sum(entry.mib for entry in account.returning.values() if entry.in_others)
    return account.total_mib - account.reserve_mib - others_mib


def _free(account: _Account) -> int:
    return _capacity(account) - account.held_mib - account.returning_mib
