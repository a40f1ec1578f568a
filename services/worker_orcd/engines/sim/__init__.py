"""The simulated engine: costs as parameters, and output that tests can recompute."""

from worker_orcd.engines.sim.tokens import SimToken, sim_text, sim_tokens

__all__ = ["SimToken", "sim_text", "sim_tokens"]
