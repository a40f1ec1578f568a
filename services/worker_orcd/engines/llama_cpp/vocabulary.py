"""The tokens of an open model: those of prompts, by the code that makes the prompts of runs, and those of texts."""

import threading
from pathlib import Path

from llorch.clock import Clock, SystemClock
from llorch.device_kind import DeviceKind
from llorch.errors import Reason, Unavailable
from llorch.gguf.facts import ModelFacts
from llorch.gguf.model_file import read_model
from worker_orcd.device import DeviceSet
from worker_orcd.engine_info import Capabilities
from worker_orcd.engines.llama_cpp.capabilities import capabilities_of
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.model_file import UnchangedFiles
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.prompt import PromptBuilder
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_reader import TextToTokenize, TokenAnswer

_NO_BOUND = 0
"""What a context would hold: prompts are counted however long they are."""


class Vocabulary:
    """Has prompts of its own, so that neither runs nor questions wait for each other. They are not opened: the process
    of a template begins with the first chat. `close` comes before the model is freed, and waits for the question that
    is being answered.
    """

    def __init__(self, model: Model, facts: ModelFacts, clock: Clock, *, owns_model: bool = False) -> None:
        self._facts = facts
        self._model = model
        self._owns_model = owns_model
        self._prompts = PromptBuilder(model, _NO_BOUND, clock)
        self._lock = threading.Lock()
        self._closed = False

    @property
    def context_trained(self) -> int:
        return self._facts.context_trained

    @property
    def capabilities(self) -> Capabilities:
        chat, tools = self._prompts.has_template, self._prompts.has_tools
        return capabilities_of(self._facts, deterministic=True, chat=chat, tools=tools)

    def count(self, spec: RunSpec) -> int:
        with self._lock:
            self._refuse_if_closed()
            if spec.inputs:
                return sum(map(len, map(self._model.tokenize_whole, spec.inputs)))
            return self._prompts.count(spec)

    def tokenize(self, text: TextToTokenize) -> TokenAnswer:
        with self._lock:
            self._refuse_if_closed()
            ids = self._prompts.tokenize(text.text, control_tokens=text.control_tokens, add_special=text.add_special)
            return TokenAnswer(len(ids), ids, list(map(self._model.spelled, ids)) if text.with_pieces else ())

    def close(self) -> None:
        with self._lock:
            if self._owns_model and not self._closed:
                self._model.close()
            self._closed = True
            self._prompts.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable(Reason.DRAINING, "this worker is shutting down")


def open_vocabulary(path: Path) -> Vocabulary:
    """Without weights. A hostile file may end the process. Raises as a load does."""
    files = UnchangedFiles(path)
    facts = read_model(path)
    shape = LlamaCppShape(path, path.stem, DeviceSet(DeviceKind.CPU, ("cpu",)), slots=1, context_per_slot=1, threads=1)
    model = Model(load_native(), shape, go_on=lambda: True, only_vocabulary=True)
    files.check()
    return Vocabulary(model, facts, SystemClock(), owns_model=True)
