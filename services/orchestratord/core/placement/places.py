"""Places that the rules leave, with the memory that the model would take there and that there is."""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llorch.worker_state import WorkerState
from orchestratord.core.facts.decision import Term, total_ms
from orchestratord.core.facts.fleet import Site
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.placement import eviction
from orchestratord.core.placement.candidates import Usable, sites_of_size
from orchestratord.core.placement.claims import Claims, Shares
from orchestratord.core.placement.cost import OF_PLACES, Costs
from orchestratord.core.placement.eviction import EVICT_MS
from orchestratord.core.placement.query import Query
from orchestratord.core.state import BrainState

LOOKED_AT_CLOSELY = 32
"""The search for workers to evict is done for this many full places, before a decision becomes sparing with it."""

Order = tuple[int, float, int, str, tuple[str, ...]]


@dataclass(slots=True)
class Claimed:
    """A place, and what the model would take there: MiB per device. `shares` of the model are empty on one device."""

    site: Site
    claims_mib: tuple[int, ...]
    shares: Shares

    @property
    def claims(self) -> dict[DeviceKey, int]:
        keys = ((self.site.node.node_id, device_id) for device_id in self.site.device_ids)
        return dict(zip(keys, self.claims_mib, strict=True))


@dataclass(slots=True)
class Fit(Claimed):
    """How the model fits on a place, with memory in MiB per device.

    `preferred` counts wishes that the place meets. `cost_ms` is its cost without an eviction.
    """

    available_mib: tuple[int, ...]
    capacity_mib: tuple[int, ...]
    preferred: int
    cost_ms: float
    fits_now: bool
    fits_when_empty: bool

    def order(self, eviction_ms: float = 0.0) -> Order:
        """Best first: what is preferred, cost, free memory, names. Total, so that equal snapshots decide equally."""
        site = self.site
        return -self.preferred, self.cost_ms + eviction_ms, -sum(self.available_mib), site.node.node_id, site.device_ids


@dataclass(slots=True)
class Surveyor:
    """Measures places for one query. Cards of one kind are alike: what they take and how fast they are is kept.

    `wanted` is how many of the best places matter, where nothing but their cost decides between them; those that can't
    be among them any more are passed over. None = all matter. Then, once many places were full, others that no
    eviction could make free go into `taken`, unweighed. `_best` has the costs of the best places so far, negated: a
    heap with the worst of them at its top.
    """

    query: Query
    claims: Claims
    costs: Costs
    wanted: int | None = None
    taken: list[Claimed] = field(default_factory=list)
    _full: int = 0
    _idle_mib: Mapping[DeviceKey, int] | None = None
    _best: list[float] = field(default_factory=list)
    _least_ms: float = math.inf
    _cards: dict[tuple[str, str, tuple[str, ...]], tuple[tuple[int, ...], float]] = field(default_factory=dict)
    _prefers: bool = field(init=False)

    def __post_init__(self) -> None:
        self._prefers = self.query.rules.prefers

    def places(self, here: Usable, size: int) -> Iterator[Fit]:
        """All places of a node with so many devices, whatever fits."""
        return self._single(here) if size == 1 else self._sets(here, size)

    def _single(self, here: Usable) -> Iterator[Fit]:
        """The path of almost every decision, over every device of the fleet."""
        node_id, ledger = here.node.node_id, self.query.state.ledger
        node_ms: float | None = None
        idle_mib = self._idle_mib
        for site in here.sites:
            device = site.devices[0]
            claims, cards_ms = self._cards.get((device.name, device.kind, device.engines)) or self._card(site)
            claim = claims[0]
            key = node_id, device.device_id
            available, capacity = ledger.room(key)
            if available < claim <= capacity:
                if idle_mib is None:
                    idle_mib = self._idle_table()
                if idle_mib is not None and idle_mib.get(key, 0) < claim - available:
                    self.taken.append(Claimed(site, claims, ()))
                    continue
            if node_ms is None:
                node_ms = total_ms(self.costs.of_node(here.node))
            cost_ms = node_ms + cards_ms
            for _, ms in OF_PLACES:
                cost_ms += ms(self.query, site, capacity, available - claim)
            if self.wanted is not None and claim <= capacity and self._is_beaten(cost_ms, fits_now=claim <= available):
                continue
            preferred = self.query.rules.preferences_met(here.node, site.device_ids) if self._prefers else 0
            yield Fit(
                site,
                claims,
                (),
                (available,),
                (capacity,),
                preferred,
                cost_ms,
                claim <= available,
                claim <= capacity,
            )

    def terms(self, place: Fit) -> tuple[Term, ...]:
        """What its cost without an eviction is made of."""
        left_mib = sum(place.available_mib) - sum(place.claims_mib)
        return self.costs.terms(place.site, sum(place.capacity_mib), left_mib)

    def _is_beaten(self, cost_ms: float, *, fits_now: bool) -> bool:
        """Equal ones are not: free memory and names decide between them."""
        if not fits_now:
            return cost_ms + EVICT_MS > self._least_ms
        self._least_ms = min(self._least_ms, cost_ms)
        if len(self._best) < (self.wanted or 0):
            heapq.heappush(self._best, -cost_ms)
            return False
        if cost_ms > -self._best[0]:
            return True
        heapq.heappushpop(self._best, -cost_ms)
        return False

    def _idle_table(self) -> Mapping[DeviceKey, int] | None:
        """Made only if many places are full: for a few, searching workers to evict costs less."""
        self._full += 1
        if self.wanted is not None and self._least_ms == math.inf and self._full > LOOKED_AT_CLOSELY:
            self._idle_mib = _idle_mib(self.query.state)
        return self._idle_mib

    def _card(self, site: Site) -> tuple[tuple[int, ...], float]:
        device = site.devices[0]
        known = self.claims.on(site.devices), total_ms(self.costs.of_cards(site))
        self._cards[device.name, device.kind, device.engines] = known
        return known

    def _sets(self, here: Usable, size: int) -> Iterator[Fit]:
        for site in sites_of_size(self.query, here, size):
            rooms = [self.query.state.ledger.room((here.node.node_id, device_id)) for device_id in site.device_ids]
            available, capacity = tuple(room[0] for room in rooms), tuple(room[1] for room in rooms)
            place = self._too_small(site, available, capacity) or self._spread(site, available, capacity)
            if place is not None:
                yield place

    def _too_small(self, site: Site, available: tuple[int, ...], capacity: tuple[int, ...]) -> Fit | None:
        """Without a search: in parts a model takes no less than as a whole."""
        (whole,) = self.claims.on(site.devices[:1])
        if whole <= sum(capacity):
            return None
        shares = in_gib(capacity)
        claims = tuple(-(-int(whole * share) // int(sum(shares))) for share in shares)
        return Fit(site, claims, shares, available, capacity, 0, 0.0, fits_now=False, fits_when_empty=False)

    def _spread(self, site: Site, available: tuple[int, ...], capacity: tuple[int, ...]) -> Fit | None:
        """Shares go by what is free; by what could be free, where that is not enough; or as the owner says. None where
        the place is taken.
        """
        for shares in self._shares_to_try(site, available, capacity):
            claims = self.claims.on(site.devices, shares)
            fits_now = all(map(int.__le__, claims, available))
            if fits_now:
                break
        fits_when_empty = all(map(int.__le__, claims, capacity))
        if fits_when_empty and not fits_now and self._is_taken(place := Claimed(site, claims, shares), available):
            self.taken.append(place)
            return None
        return Fit(
            site,
            claims,
            shares,
            available,
            capacity,
            self.query.rules.preferences_met(site.node, site.device_ids),
            total_ms(self.costs.terms(site, sum(capacity), sum(available) - sum(claims))),
            fits_now,
            fits_when_empty,
        )

    def _is_taken(self, place: Claimed, available: tuple[int, ...]) -> bool:
        """Whether no eviction could make it free; where few places are full, that is not asked."""
        idle_mib = self._idle_table() if self._idle_mib is None else self._idle_mib
        if idle_mib is None:
            return False
        return any(
            idle_mib.get(key, 0) < claim - free
            for (key, claim), free in zip(place.claims.items(), available, strict=True)
        )

    def _shares_to_try(self, site: Site, available: tuple[int, ...], capacity: tuple[int, ...]) -> Iterator[Shares]:
        said = self.query.model.spec.split_shares
        if len(said) == len(available):
            yield said
            return
        if min(available) > 0:
            yield in_gib(available)
        keys = ((site.node.node_id, device_id) for device_id in site.device_ids)
        could_be_free = tuple(eviction.free_when_all_left(self.query.state, key) for key in keys)
        yield in_gib(could_be_free if min(could_be_free) > 0 else capacity)


def in_gib(memory_mib: tuple[int, ...]) -> Shares:
    """Rounded: what is learnt about a split is useful again only if the same split comes again."""
    return tuple(float(max(1, mib // 1024)) for mib in memory_mib)


def _idle_mib(state: BrainState) -> dict[DeviceKey, int]:
    """How much memory idle and leaving workers hold, by device: more than that no eviction can free.

    In a large fleet it spares the search for workers to evict where all are busy, which may be everywhere.
    """
    held: dict[DeviceKey, int] = {}
    for worker in state.fleet.workers.values():
        if worker.attempts and worker.leaving is None and worker.state is not WorkerState.STOPPING:
            continue  # of nearly all, and sooner told than by what follows
        if worker.is_idle or not worker.serves:
            for device_id in worker.spec.device_ids:
                key = worker.node_id, device_id
                held[key] = held.get(key, 0) + state.ledger.held_by(worker.worker_id, key)
    return held
