"""Counts the places that were considered, and those that were removed, by filter; lists them on request."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestratord.core.facts.decision import NO_PLACE, Candidate, Largest
from orchestratord.core.facts.fleet import Site
from orchestratord.core.placement.filters import Filter
from orchestratord.core.placement.occupants import why_full
from orchestratord.core.placement.query import Query

TOO_SMALL = "fits_when_empty"
NO_ROOM = "room"


@dataclass(slots=True)
class Tally:
    query: Query
    with_details: bool
    counts: dict[str, int] = field(default_factory=dict)
    details: list[Candidate] = field(default_factory=list)
    considered: int = 0
    largest: Largest = NO_PLACE

    def passes(self, asked: Sequence[Filter], site: Site, stands_for: Sequence[Site]) -> bool:
        """Whether every filter leaves the site; the first that does not is noted for all sites that it stands for."""
        for one in asked:
            if one.removes(self.query, site):
                self._note(one.name, stands_for, one.detail(self.query, site) if self.with_details else "")
                return False
        return True

    def left_of(self, asked: Sequence[Filter], sites: Sequence[Site]) -> Sequence[Site]:
        """The sites that every filter leaves. Filter by filter: this is asked of every device of a fleet."""
        left = sites
        for one in asked:
            removes, query = one.removes, self.query
            kept = [site for site in left if not removes(query, site)]
            for site in left if len(kept) < len(left) else ():
                if removes(query, site):
                    self._note(one.name, (site,), one.detail(query, site) if self.with_details else "")
            left = kept
        return left

    def too_small(self, site: Site, claims_mib: tuple[int, ...], capacity_mib: tuple[int, ...]) -> None:
        self.largest = self.largest.or_larger(Largest(sum(capacity_mib), len(capacity_mib)))
        self._note(TOO_SMALL, (site,), _needs_more(site, claims_mib, capacity_mib) if self.with_details else "")

    def count_too_small(self, count: int, largest: Largest) -> None:
        """Of so many places, without details."""
        self.largest = self.largest.or_larger(largest)
        self._count(TOO_SMALL, count)

    def lack_room(self, sites: Sequence[Site], others: int = 0) -> None:
        """The places, and so many others, are large enough, but the workers that are there can't leave now."""
        self._count(NO_ROOM, others)
        if not self.with_details:
            self._note(NO_ROOM, sites, "")
            return
        for site in sites:
            self._note(NO_ROOM, (site,), why_full(self.query, site))

    def tell_full(self, sites: Sequence[Site]) -> None:
        """Full places beside those that will do. Not counted: without details they are not searched for."""
        self.details += [_removed(site, NO_ROOM, why_full(self.query, site)) for site in sites]

    def _note(self, name: str, sites: Sequence[Site], detail: str) -> None:
        self._count(name, len(sites))
        if self.with_details:
            self.details += [_removed(site, name, detail) for site in sites]

    def _count(self, name: str, count: int) -> None:
        if count:
            self.counts[name] = self.counts.get(name, 0) + count


def _removed(site: Site, name: str, detail: str) -> Candidate:
    return Candidate(site.node.node_id, site.device_ids, site.where, filtered_by=name, filter_detail=detail)


def _needs_more(site: Site, claims_mib: tuple[int, ...], capacity_mib: tuple[int, ...]) -> str:
    lacking = [
        f"needs {claim} MiB, {device.name} has {whole} MiB when empty"
        for device, claim, whole in zip(site.devices, claims_mib, capacity_mib, strict=True)
        if claim > whole
    ]
    return "; ".join(lacking)
