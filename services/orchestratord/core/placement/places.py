"""Places that the rules leave, with the memory that the model would take there and that there is."""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from orchestratord.core.facts.decision import NO_PLACE, Largest, Term, total_ms
from orchestratord.core.facts.fleet import Site
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.placement import eviction
from orchestratord.core.placement.candidates import Usable, number_of_sets, sites_of_size
from orchestratord.core.placement.claims import WHOLE, Card, Claims, Shares, card_of
from orchestratord.core.placement.cost import OF_PLACES, Costs
from orchestratord.core.placement.eviction import EVICT_MS
from orchestratord.core.placement.idle_memory import IdleMemory
from orchestratord.core.placement.query import Query

LOOKED_AT_CLOSELY = 16
"""Where so many full places could not be made free by an eviction, the whole fleet may be busy: its idle memory is
summed up once, rather than looked for place by place.
"""

Order = tuple[int, float, int, str, tuple[str, ...]]


class Fit(NamedTuple):
    """How the model fits on a place, with memory in MiB per device.

    The best comes first in order: by the wishes that it meets, cost without an eviction, free memory, names. Total, so
    that equal snapshots decide equally. `wishes` and `free_mib` are negative for that; `shares` of the model are empty
    on one device.
    """

    wishes: int
    cost_ms: float
    free_mib: int
    node_id: str
    device_ids: tuple[str, ...]
    site: Site
    claims_mib: tuple[int, ...]
    shares: Shares
    available_mib: tuple[int, ...]
    capacity_mib: tuple[int, ...]
    fits_now: bool
    fits_when_empty: bool

    @property
    def claims(self) -> dict[DeviceKey, int]:
        return {(self.node_id, device_id): mib for device_id, mib in zip(self.device_ids, self.claims_mib, strict=True)}

    @property
    def lacking(self) -> dict[DeviceKey, int]:
        """How much more it takes than is free, in MiB, by device."""
        found = zip(self.claims.items(), self.available_mib, strict=True)
        return {key: claim - free for (key, claim), free in found if claim > free}

    def order(self, eviction_ms: float = 0.0) -> Order:
        return self.wishes, self.cost_ms + eviction_ms, self.free_mib, self.node_id, self.device_ids


@dataclass(slots=True)
class Surveyor:
    """Measures places for one query. Cards of one kind are alike: what they take and how fast they are is kept.

    `only_counts`: of places that are too small it is enough to know how many there are, and the largest of them.
    `wanted` is how many of the best places matter, where nothing but their cost decides between them; None = all
    matter. Then those that can't be among them any more are passed over, and those that no eviction could make free now
    go into `_taken`, unweighed; `_has_hope` says that there was one that an eviction might make free: then all are
    weighed. `_idle_mib` is set once many were full, and there was no hope. `_best` has the costs of the best places so
    far, negated: a heap with the worst of them at its top.
    """

    query: Query
    claims: Claims
    costs: Costs
    only_counts: bool = False
    wanted: int | None = None
    too_small: int = 0
    largest: Largest = NO_PLACE
    idle: IdleMemory = field(init=False)
    _taken: list[Site] = field(default_factory=list)
    _taken_nodes: list[Usable] = field(default_factory=list)
    """All sets of devices of these are taken."""
    _full: int = 0
    _has_hope: bool = False
    _idle_mib: Mapping[DeviceKey, int] | None = None
    _best: list[float] = field(default_factory=list)
    _least_ms: float = math.inf
    _cards: dict[Card, tuple[tuple[int, ...], float]] = field(default_factory=dict)
    _sets_fit: dict[tuple[int, tuple[Card, int, int]], bool] = field(default_factory=dict)
    """By the number of devices, and what each of them is and holds when empty, and beside workers that stay."""
    _prefers: bool = field(init=False)

    def __post_init__(self) -> None:
        self.idle = IdleMemory(self.query.state)
        self._prefers = self.query.rules.prefers

    def begin_size(self) -> None:
        """Other sets of devices are measured from now on."""
        self._taken.clear()
        self._taken_nodes.clear()
        self._full, self._has_hope, self._idle_mib = 0, False, None

    def places(self, here: Usable, size: int) -> Iterator[Fit]:
        """All places of a node with so many devices, whatever fits, but for those that are only counted."""
        if size == 1:
            yield from self._single(here)
        elif not self._are_only_counted(here, size):
            yield from self._sets(here, size)

    def count_taken(self, size: int) -> int:
        return len(self._taken) + sum(number_of_sets(self.query, here, size) for here in self._taken_nodes)

    def taken(self, size: int) -> Iterator[Fit]:
        """The places that were not weighed."""
        for site in chain(self._taken, *(sites_of_size(self.query, here, size) for here in self._taken_nodes)):
            yield self._fit_of(site)

    def terms(self, place: Fit) -> tuple[Term, ...]:
        """What its cost without an eviction is made of."""
        left_mib = sum(place.available_mib) - sum(place.claims_mib)
        return self.costs.terms(place.site, sum(place.capacity_mib), left_mib)

    def _single(self, here: Usable) -> Iterator[Fit]:
        """The path of almost every decision, over every device of the fleet."""
        node_id, room_of = here.node.node_id, self.query.state.ledger.room
        only_counts, chooses = self.only_counts, self.wanted is not None
        node_ms = total_ms(self.costs.of_node(here.node))
        small, largest_mib = 0, 0
        for site in here.sites:
            device = site.devices[0]
            claims, cards_ms = self._cards.get((device.kind, device.name, device.engines)) or self._card(site)
            claim = claims[0]
            key = node_id, device.device_id
            available, capacity = room_of(key)
            if claim > capacity:
                if only_counts:
                    small += 1
                    largest_mib = max(largest_mib, capacity)
                else:
                    yield _too_small(site, claims, (), (available,), (capacity,))
                continue
            fits_now = claim <= available
            if chooses and not fits_now:
                if self._idle_mib is None:
                    is_taken = self._is_taken({key: claim - available})
                else:
                    is_taken = self._idle_mib.get(key, 0) < claim - available
                if is_taken:
                    self._taken.append(site)
                    continue
            cost_ms = node_ms + cards_ms
            for _, ms in OF_PLACES:
                cost_ms += ms(self.query, site, capacity, available - claim)
            if chooses and self._is_beaten(cost_ms, fits_now=fits_now):
                continue
            yield Fit(
                -self.query.rules.preferences_met(here.node, site.device_ids) if self._prefers else 0,
                cost_ms,
                -available,
                node_id,
                site.device_ids,
                site,
                claims,
                (),
                (available,),
                (capacity,),
                fits_now,
                True,
            )
        if small:
            self._count_too_small(small, Largest(largest_mib))

    def _sets(self, here: Usable, size: int) -> Iterator[Fit]:
        for site in sites_of_size(self.query, here, size):
            place = self._fit_of(site)
            is_full = place.fits_when_empty and not place.fits_now
            if is_full and self.wanted is not None and self._is_taken(place.lacking):
                self._taken.append(site)
            else:
                yield place

    def _are_only_counted(self, here: Usable, size: int) -> bool:
        """Whether all sets of the node are too small, or taken: in parts a model takes no less than as a whole."""
        if not self.only_counts or len(here.sites) < size:
            return False
        room_of, node_id = self.query.state.ledger.room, here.node.node_id
        cards = [card_of(site.devices[0]) for site in here.sites]
        whole = min(self._claim_of(card, site) for card, site in zip(cards, here.sites, strict=True))
        keys = [(node_id, site.device_ids[0]) for site in here.sites]
        rooms = [room_of(key) for key in keys]
        most = _sum_of_largest(size, [capacity for _, capacity in rooms])
        if most < whole:
            self._count_too_small(number_of_sets(self.query, here, size), Largest(most, size))
            return True
        if self._idle_mib is None:
            return False
        to_be_had = [max(0, free + self._idle_mib.get(key, 0)) for key, (free, _) in zip(keys, rooms, strict=True)]
        if _sum_of_largest(size, to_be_had) >= whole:
            return False
        alike = {(card, room[1], self._beside_kept(key)) for card, room, key in zip(cards, rooms, keys, strict=True)}
        if len(alike) > 1:
            return False
        if self._do_sets_fit(here, size, *alike):
            self._taken_nodes.append(here)
        else:
            self._count_too_small(number_of_sets(self.query, here, size), Largest(most, size))
        return True

    def _do_sets_fit(self, here: Usable, size: int, each: tuple[Card, int, int]) -> bool:
        """Whether the model fits on so many of the devices of the node when they are empty, where all are alike."""
        if (size, each) not in self._sets_fit:
            first = next(sites_of_size(self.query, here, size))
            self._sets_fit[size, each] = self._fit_of(first).fits_when_empty
        return self._sets_fit[size, each]

    def _claim_of(self, card: Card, site: Site) -> int:
        """As a whole on one device."""
        return (self._cards.get(card) or self._card(site))[0][0]

    def _beside_kept(self, device: DeviceKey) -> int:
        return eviction.free_when_all_left(self.query.state, device)

    def _count_too_small(self, count: int, largest: Largest) -> None:
        self.too_small += count
        self.largest = self.largest.or_larger(largest)

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

    def _is_taken(self, lacking: Mapping[DeviceKey, int]) -> bool:
        """Whether no eviction could make so much memory free now. Once there was a place that will do, or that may do,
        the others are weighed, too.
        """
        if self._has_hope or self._least_ms < math.inf:
            return False
        self._full += 1
        if self._full > LOOKED_AT_CLOSELY:
            self._idle_mib = self.idle.of_all()
        if self._idle_mib is not None:
            return not self.idle.is_enough(lacking)
        self._has_hope = all(self.idle.on(device) >= mib for device, mib in lacking.items())
        return not self._has_hope

    def _card(self, site: Site) -> tuple[tuple[int, ...], float]:
        known = self.claims.on(site.devices), total_ms(self.costs.of_cards(site))
        self._cards[card_of(site.devices[0])] = known
        return known

    def _fit_of(self, site: Site) -> Fit:
        """Shares go by what is free; by what could be free, where that is not enough; or as the owner says."""
        rooms = [self.query.state.ledger.room((site.node.node_id, device_id)) for device_id in site.device_ids]
        available, capacity = tuple(room[0] for room in rooms), tuple(room[1] for room in rooms)
        (whole,) = self.claims.on(site.devices[:1])
        if whole > sum(capacity):
            shares = in_gib(capacity)
            claims = tuple(-(-int(whole * share) // int(sum(shares))) for share in shares)
            return _too_small(site, claims, shares, available, capacity)
        for shares in self._shares_to_try(site, available, capacity):
            claims = self.claims.on(site.devices, shares or WHOLE)
            fits_now = all(map(int.__le__, claims, available))
            if fits_now:
                break
        return Fit(
            -self.query.rules.preferences_met(site.node, site.device_ids),
            total_ms(self.costs.terms(site, sum(capacity), sum(available) - sum(claims))),
            -sum(available),
            site.node.node_id,
            site.device_ids,
            site,
            claims,
            shares,
            available,
            capacity,
            fits_now,
            all(map(int.__le__, claims, capacity)),
        )

    def _shares_to_try(self, site: Site, available: tuple[int, ...], capacity: tuple[int, ...]) -> Iterator[Shares]:
        if len(site.device_ids) == 1:
            yield ()
            return
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


def _sum_of_largest(count: int, values: list[int]) -> int:
    return sum(sorted(values)[-count:])


def _too_small(
    site: Site, claims: tuple[int, ...], shares: Shares, available: tuple[int, ...], capacity: tuple[int, ...]
) -> Fit:
    """Without a cost: nothing will come of it."""
    node_id, device_ids = site.node.node_id, site.device_ids
    return Fit(0, 0.0, 0, node_id, device_ids, site, claims, shares, available, capacity, False, False)
