"""The tokens of prompts, as the simulated engine counts them."""

from worker_orcd.engine_info import Capabilities
from worker_orcd.engines.sim.tokens import sim_piece_id, sim_prompt_pieces, sim_prompt_tokens
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_reader import TextToTokenize, TokenAnswer


class SimTokenReader:
    """Knows no control tokens and no token that begins a prompt."""

    def __init__(self, capabilities: Capabilities, context_trained: int = 0) -> None:
        self.capabilities = capabilities
        self.context_trained = context_trained

    def count(self, spec: RunSpec) -> int:
        return sum(map(sim_prompt_tokens, spec.inputs or [prompt_text(spec)]))

    def tokenize(self, text: TextToTokenize) -> TokenAnswer:
        pieces = sim_prompt_pieces(text.text)
        return TokenAnswer(len(pieces), list(map(sim_piece_id, pieces)), pieces if text.with_pieces else ())

    def close(self) -> None:
        """There is nothing to end."""


def prompt_text(spec: RunSpec) -> str:
    """It has no chat template."""
    return spec.prompt or "\n".join(message.content for message in spec.messages)
