"""What a place costs: the predicted time from now to the last token, in ms, as a sum of named terms.

load      bring the model into memory there, if it is not
queue     wait until a slot is free
prefill   evaluate the tokens of the prompt that are not in the KV cache there already
decode    generate the answer, with as many others as there are at once
pressure  how full the place gets; decides between places that are otherwise equal

A term of a place where the model would be loaded stands in the table of what it depends on, below: the node, the
cards, or the very place now. A further one is a function and its line there. Those of the cards hold for a worker that
has the model already, too; `worker_terms` adds what only such a worker costs. What an eviction costs on top is said in
`eviction.py`.

Measurements count. What is not known yet is guessed from what the work is bound by: reading weights. Such a guess
orders places; it is never shown as a prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from llorch.device_kind import DeviceKind
from orchestratord.core.facts.decision import Term
from orchestratord.core.facts.fleet import Device, Node, Site, Worker
from orchestratord.core.learnt.estimates import Estimate
from orchestratord.core.learnt.rates import device_key
from orchestratord.core.placement.query import Query
from orchestratord.core.state import BrainState

NO_WAIT = Term("queue", 0.0)

PRESSURE_MS = 20.0
"""For a place that is full: less than any difference that a client would notice."""

_UNKNOWN_SIZE_MIB = 4096
_READ_MIB_PER_MS = 1.5  # a disk or page cache, into a GPU
_START_MS = 1500.0  # a process and a CUDA context
_LEAST_LOAD_MS = 100.0  # a process; evicting a model that loads in no time would cost nothing, however much it is used
_WEIGHTS_MIB_PER_MS = {DeviceKind.CUDA: 400.0, DeviceKind.SIMULATED: 400.0, DeviceKind.CPU: 30.0}
_PREFILL_SPEEDUP = 30.0  # tokens of a prompt share one reading of the weights
_OUTPUT_TOKENS = 256
_PREFILL = "prefill"

Devices = tuple[Device, ...]


@dataclass(slots=True)
class Costs:
    """Costs for one query. What is the same for all places with some cards is computed once."""

    query: Query
    _of_cards: dict[tuple[str, int], tuple[Term, ...]] = field(default_factory=dict)

    def of_node(self, node: Node) -> list[Term]:
        return [term(self.query, node) for term in OF_NODES]

    def of_cards(self, site: Site, batch: int = 1) -> tuple[Term, ...]:
        """With so many runs at once."""
        key = device_key([device.name for device in site.devices]), batch
        if key not in self._of_cards:
            self._of_cards[key] = tuple(term(self.query, site.devices, *key) for term in OF_CARDS)
        return self._of_cards[key]

    def terms(self, site: Site, capacity_mib: int, left_mib: int) -> tuple[Term, ...]:
        """All, before any worker has to leave."""
        own = (Term(name, ms(self.query, site, capacity_mib, left_mib)) for name, ms in OF_PLACES)
        return *self.of_node(site.node), *self.of_cards(site), *own


def load_term(state: BrainState, name: str, node_id: str) -> Term:
    """The time to load the model on the node: as loads took there, else guessed from its size."""
    return _load_term(state, name, node_id, _size_mib(state, name))


def known_load_ms(state: BrainState, name: str, node_id: str) -> Estimate | None:
    """By earlier loads of the model, or of others, on the node; None where there were none."""
    return state.rates.load_ms(name, node_id, _size_mib(state, name))


def _size_mib(state: BrainState, name: str) -> int | None:
    model = state.catalog.find(name)
    return None if model is None else model.size_mib


def worker_terms(query: Query, costs: Costs, site: Site, worker: Worker, *, warm_tokens: int) -> tuple[Term, ...]:
    """For a worker that is there, from the slot on: what is warm in its cache need not be evaluated again."""
    tokens = query.request.prompt_tokens
    cold_share = 1 - min(warm_tokens, tokens) / tokens if tokens else 1.0
    work = costs.of_cards(site, batch=min(worker.slots, len(worker.attempts) + 1))
    return tuple(replace(one, ms=one.ms * cold_share) if one.name == _PREFILL else one for one in work)


def _load(query: Query, node: Node) -> Term:
    return _load_term(query.state, query.model.name, node.node_id, query.model.size_mib)


def _load_term(state: BrainState, name: str, node_id: str, size_mib: int | None) -> Term:
    known = state.rates.load_ms(name, node_id, size_mib)
    if known is None:
        return Term("load", _START_MS + (size_mib or _UNKNOWN_SIZE_MIB) / _READ_MIB_PER_MS, is_guess=True)
    return Term("load", max(_LEAST_LOAD_MS, known.mean))


def _prefill(query: Query, devices: Devices, cards: str, _batch: int) -> Term:
    tokens = query.request.prompt_tokens
    known = query.state.rates.prefill_ms(query.model.name, cards, tokens)
    return _term(_PREFILL, known, tokens * _token_ms(query, devices) / _PREFILL_SPEEDUP)


def _decode(query: Query, devices: Devices, cards: str, batch: int) -> Term:
    tokens = query.request.output_tokens or _OUTPUT_TOKENS
    known = query.state.rates.decode_ms(query.model.name, cards, batch, tokens)
    return _term("decode", known, tokens * _token_ms(query, devices))


def _pressure_ms(_query: Query, _site: Site, capacity_mib: int, left_mib: int) -> float:
    """A place that does not have the memory is as full as can be."""
    return PRESSURE_MS * (1 - max(0, left_mib) / capacity_mib) if capacity_mib > 0 else PRESSURE_MS


def _token_ms(query: Query, devices: Devices) -> float:
    """A token of one run reads every weight once, whatever device of the set it is on."""
    return (query.model.size_mib or _UNKNOWN_SIZE_MIB) / _WEIGHTS_MIB_PER_MS[
        devices[0].kind if devices else DeviceKind.CUDA
    ]


def _term(name: str, known: Estimate | None, guess_ms: float) -> Term:
    return Term(name, guess_ms, is_guess=True) if known is None else Term(name, known.mean)


OF_NODES: tuple[Callable[[Query, Node], Term], ...] = (_load,)
"""The same for every place of a node where the model would be loaded."""

OF_CARDS: tuple[Callable[[Query, Devices, str, int], Term], ...] = (_prefill, _decode)
"""The same for all places with cards of these names, with so many runs at once: of the devices these functions read
what all cards of a name have in common. Workers that are there have these terms too.
"""

OF_PLACES: tuple[tuple[str, Callable[[Query, Site, int, int], float]], ...] = (("pressure", _pressure_ms),)
"""Of the very place now, by name, in ms: from its capacity, and from what it would have left, in MiB; never a guess.

Asked for every device of the fleet: a function here looks at nothing that it would have to search.
"""
