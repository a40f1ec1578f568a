"""Decisions in sentences for users."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from llorch.counted import counted
from orchestratord.core.facts.decision import Candidate, DecisionRecord, Evicted, Outcome
from orchestratord.core.facts.durations import duration
from orchestratord.core.placement import filters
from orchestratord.core.placement.tally import NO_ROOM

_REASONS_TOLD = 4
_BY_RULES = frozenset(one.name for one in filters.OF_RULES)


def sentence(record: DecisionRecord, *, is_dry_run: bool = False) -> str:
    """For example: would load on GPU 1 (RTX 3060) of garage: 3.1 s to load, evicts phi-4 (idle 14 min, frees 8.9 GiB);
    GPU 0 (RTX 3090) of garage excluded: rule 'coder only on garage/RTX 3060'.
    """
    parts = [_what(record, is_dry_run=is_dry_run)]
    if record.fallback_used:
        parts.append("the place of a rule is lost, and its fallback allows another")
    parts += _exclusions(record)
    return "; ".join(parts)


def _what(record: DecisionRecord, *, is_dry_run: bool) -> str:
    best = record.candidates[0] if record.candidates and not record.candidates[0].filtered_by else None
    match record.outcome:
        case Outcome.CHOSEN if best is not None and best.worker_id:
            return f"{'would run' if is_dry_run else 'ran'} on {best.where}, where it is loaded"
        case Outcome.CHOSEN if best is not None:
            return f"{'would load' if is_dry_run else 'loaded'} on {best.where}: {_load(best)}"
        case Outcome.WAITS if record.why:
            return f"{'would wait' if is_dry_run else 'waited'} for {record.why}"
        case Outcome.WAITS if best is not None:
            return f"{'would wait' if is_dry_run else 'waited'}{_how_long(best)} {_for_what(best)} {best.where}"
        case Outcome.WAITS:
            return f"{'would wait' if is_dry_run else 'waited'} until there is room for it"
        case _:
            told = "can't be placed" if is_dry_run else "could not be placed"
            return f"{told}: {record.why}" if record.why else told


def slot_behind(place: Candidate, tasks: int, app: str) -> str:
    """For example: a slot on GPU 0 (RTX 3090) of garage, about 12 s, behind 3 tasks, of app 'flood' first."""
    how_long = f",{told}" if (told := _how_long(place)) else ""
    first = f", of app '{app}' first" if app else ""
    return f"a slot on {place.where}{how_long}, behind {counted(tasks, 'task')}{first}"


def _how_long(place: Candidate) -> str:
    """Only where that is known."""
    wait_ms = place.ms("load", "queue")
    if not wait_ms or place.is_guess("load") or place.is_guess("queue"):
        return ""
    return f" about {duration(wait_ms / 1000)}"


def _for_what(place: Candidate) -> str:
    if not any(term.name == "load" for term in place.terms):
        return "for a slot on"
    return "for it to be loaded, and for a slot, on" if place.ms("queue") else "until it is loaded on"


def _load(chosen: Candidate) -> str:
    told = f"{duration(chosen.ms('load') / 1000)} to load"
    if chosen.is_guess("load"):
        told = f"about {told} for the first time"
    if not any(chosen.claims_mib):
        told += ", if there is room for it: what it takes is known once its file was looked at"
    if len(chosen.device_ids) > 1:
        told += f", {' + '.join(_gib(mib) for mib in chosen.claims_mib)}"
    return f"{told}, evicts {' and '.join(map(_evicted, chosen.evicted))}" if chosen.evicted else told


def _evicted(worker: Evicted) -> str:
    return f"{worker.model} (idle {duration(worker.idle_s)}, frees {_gib(worker.mib)})"


def _exclusions(record: DecisionRecord) -> Iterator[str]:
    """What removed the others: one by one with the reasons, as far as they are known, or counted."""
    removed = [candidate for candidate in record.candidates if candidate.filtered_by]
    told = _once([left for candidate in removed if (left := _beside(record.why, candidate)) is not None])
    if not told and record.why:
        return
    if not told:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(record.removed.items()))
        if counts:
            yield f"other places excluded by: {counts}"
        return
    groups = [list(group) for _, group in groupby(sorted(told, key=_reason), key=_reason)]
    groups.sort(key=lambda group: told.index(group[0]))
    yield from map(_exclusion, groups[:_REASONS_TOLD])
    if rest := sum(map(len, groups[_REASONS_TOLD:])):
        yield f"{rest} more excluded"


def _beside(why: str, removed: Candidate) -> Candidate | None:
    """With what its reason says beside why nothing was placed at all; None where it says the same. Which places a rule
    excludes is told all the same.
    """
    told, detail = why.replace(", which ", " "), removed.filter_detail  # an absence is told with or without that word
    if not told or removed.filtered_by in _BY_RULES:
        return removed
    if detail.partition("; ")[0] in told:
        return None
    what, _, cause = detail.partition(": ")
    return replace(removed, filter_detail=what) if cause and cause in told else removed


def _once(removed: Sequence[Candidate]) -> list[Candidate]:
    """Without sets of devices of which one is told by itself for the same reason: the set adds nothing to that."""
    alone = {(one.node_id, one.device_ids[0], *_reason(one)) for one in removed if len(one.device_ids) == 1}

    def is_told(one: Candidate) -> bool:
        return any((one.node_id, device_id, *_reason(one)) in alone for device_id in one.device_ids)

    return [one for one in removed if len(one.device_ids) == 1 or not is_told(one)]


def _exclusion(group: Sequence[Candidate]) -> str:
    first = group[0]
    where = ", ".join(candidate.where for candidate in group[:_REASONS_TOLD])
    more = f" and {len(group) - _REASONS_TOLD} more" if len(group) > _REASONS_TOLD else ""
    return f"{where}{more} {'taken' if first.filtered_by == NO_ROOM else 'excluded'}: {first.filter_detail}"


def _reason(candidate: Candidate) -> tuple[str, str]:
    return candidate.filtered_by, candidate.filter_detail


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
