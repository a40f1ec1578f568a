"""Picks the next token, in C."""

from typing import Any

from worker_orcd.run_spec import Sampling


class Sampler:
    """llama.cpp's chain in its usual order, without its last stage: that is made anew for every draw.

    Used by the engine's thread only. `close` frees it, before its context is freed.
    """

    def __init__(self, lib: Any, sampling: Sampling) -> None:
        self._lib = lib
        self._greedy = sampling.temperature == 0
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for stage in _stages(lib, sampling):
            lib.llama_sampler_chain_add(self._chain, stage)
        self._length = lib.llama_sampler_chain_n(self._chain)

    def pick(self, context: int, output: int, seed: int) -> int:
        """The token for row `output` of the last decoded batch."""
        if self._greedy:
            return int(self._lib.llama_sampler_sample(self._chain, context, output))
        self._lib.llama_sampler_chain_add(self._chain, self._lib.llama_sampler_init_dist(seed))
        token_id = int(self._lib.llama_sampler_sample(self._chain, context, output))
        self._lib.llama_sampler_free(self._lib.llama_sampler_chain_remove(self._chain, self._length))
        return token_id

    def close(self) -> None:
        self._lib.llama_sampler_free(self._chain)


def _stages(lib: Any, sampling: Sampling) -> list[Any]:
    if sampling.temperature == 0:
        return [lib.llama_sampler_init_greedy()]
    stages = []
    if sampling.top_k > 0:
        stages.append(lib.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        stages.append(lib.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        stages.append(lib.llama_sampler_init_min_p(sampling.min_p, 1))
    stages.append(lib.llama_sampler_init_temp(sampling.temperature))
    return stages
