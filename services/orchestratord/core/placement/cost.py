"""What a place costs: the predicted time from now to the last token, in ms, as a sum of named terms.

load      bring the model into memory there, if it is not
evict     stop the workers that have to leave, and wait for their memory
queue     wait until a slot is free
prefill   evaluate the tokens of the prompt that are not in the KV cache there already
decode    generate the answer, with as many others as there are at once
regret    time to load the evicted models again, weighted with the probability that they are asked for
pressure  how full the place gets; decides between places that are otherwise equal

Measurements count. What is not known yet is guessed from what the work is bound by: reading weights. Such a guess
orders places; it is never shown as a prediction.
"""

from dataclasses import dataclass, field, replace

from llorch.device_kind import DeviceKind
from orchestratord.core.facts.decision import Term
from orchestratord.core.facts.fleet import Node, Worker
from orchestratord.core.learnt.estimates import Estimate
from orchestratord.core.learnt.rates import device_key
from orchestratord.core.placement.query import Query, Site
from orchestratord.core.state import BrainState

EVICT_MS = 500.0
"""A worker ends, and the driver gives its memory back; the ledger bounds the wait for that."""

PRESSURE_MS = 20.0
"""For a place that is full: less than any difference that a client would notice."""

_UNKNOWN_SIZE_MIB = 4096
_READ_MIB_PER_MS = 1.5  # a disk or page cache, into a GPU
_START_MS = 1500.0  # a process and a CUDA context
_LEAST_LOAD_MS = 100.0  # a process; evicting a model that loads in no time would cost nothing, however much it is used
_WEIGHTS_MIB_PER_MS = {DeviceKind.CUDA: 400.0, DeviceKind.SIMULATED: 400.0, DeviceKind.CPU: 30.0}
_PREFILL_SPEEDUP = 30.0  # tokens of a prompt share one reading of the weights
_OUTPUT_TOKENS = 256


@dataclass(slots=True)
class Costs:
    """Costs for one query. What is the same for many places is computed once: rates go by card, loads by node."""

    query: Query
    _work: dict[tuple[str, int], tuple[Term, Term]] = field(default_factory=dict)
    _loads: dict[str, Term] = field(default_factory=dict)

    def base_ms(self, site: Site) -> float:
        """What loading and working there costs, before evictions and pressure."""
        return self.load(site.node).ms + self.work_ms(site)

    def load(self, node: Node) -> Term:
        if node.node_id not in self._loads:
            self._loads[node.node_id] = load_term(self.query.state, self.query.model.name, node.node_id)
        return self._loads[node.node_id]

    def work_ms(self, site: Site) -> float:
        prefill, decode = self.work(site, batch=1)
        return prefill.ms + decode.ms

    def work(self, site: Site, batch: int) -> tuple[Term, Term]:
        """Prefill and decode there, with so many runs at once."""
        key = device_key([device.name for device in site.devices]), batch
        if key not in self._work:
            self._work[key] = (
                _prefill(self.query, site, key[0]),
                _decode(self.query, site, *key),
            )
        return self._work[key]

    def pressure(self, site: Site, cost_ms: float) -> Term:
        """The rest of a cost whose other parts are known."""
        return Term("pressure", cost_ms - self.base_ms(site))


def load_term(state: BrainState, name: str, node_id: str) -> Term:
    """The time to load the model on the node: as loads took there, else guessed from its size."""
    known = known_load_ms(state, name, node_id)
    if known is None:
        size_mib = _size_mib(state, name) or _UNKNOWN_SIZE_MIB
        return Term("load", _START_MS + size_mib / _READ_MIB_PER_MS, is_guess=True)
    return Term("load", max(_LEAST_LOAD_MS, known.mean))


def known_load_ms(state: BrainState, name: str, node_id: str) -> Estimate | None:
    """By earlier loads of the model, or of others, on the node; None where there were none."""
    return state.rates.load_ms(name, node_id, _size_mib(state, name))


def _size_mib(state: BrainState, name: str) -> int | None:
    model = state.catalog.find(name)
    return None if model is None else model.size_mib


def pressure_ms(capacity_mib: int, left_mib: int) -> float:
    """For a place that would have so much left; a place that does not have it is as full as can be."""
    return PRESSURE_MS * (1 - max(0, left_mib) / capacity_mib) if capacity_mib > 0 else PRESSURE_MS


def worker_terms(
    query: Query, costs: Costs, site: Site, worker: Worker, *, queue_ms: float, warm_tokens: int
) -> tuple[Term, ...]:
    """For a worker that is there: what is warm in its cache need not be evaluated again."""
    prefill, decode = costs.work(site, batch=len(worker.attempts) + 1)
    tokens = query.request.prompt_tokens
    cold_share = 1 - min(warm_tokens, tokens) / tokens if tokens else 1.0
    return Term("queue", queue_ms), replace(prefill, ms=prefill.ms * cold_share), decode


def _prefill(query: Query, site: Site, device: str) -> Term:
    tokens = query.request.prompt_tokens
    known = query.state.rates.prefill_ms(query.model.name, device, tokens)
    return _term("prefill", known, tokens * _token_ms(query, site) / _PREFILL_SPEEDUP)


def _decode(query: Query, site: Site, device: str, batch: int) -> Term:
    tokens = query.request.output_tokens or _OUTPUT_TOKENS
    known = query.state.rates.decode_ms(query.model.name, device, batch, tokens)
    return _term("decode", known, tokens * _token_ms(query, site))


def _token_ms(query: Query, site: Site) -> float:
    """A token of one run reads every weight once, whatever device of the set it is on."""
    return (query.model.size_mib or _UNKNOWN_SIZE_MIB) / _WEIGHTS_MIB_PER_MS[
        site.devices[0].kind if site.devices else DeviceKind.CUDA
    ]


def _term(name: str, known: Estimate | None, guess_ms: float) -> Term:
    return Term(name, guess_ms, is_guess=True) if known is None else Term(name, known.mean)
