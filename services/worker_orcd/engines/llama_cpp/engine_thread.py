"""The thread that owns the native context, from loading to freeing.

One queue leads in and one callback out: it is called on the event loop once per step, with the whole step.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from llorch.clock import SystemClock
from llorch.device_kind import DeviceKind
from llorch.errors import Internal, LlorchError, Reason
from llorch.finish_reason import FinishReason
from llorch.gguf.facts import ModelFacts
from llorch.gguf.model_file import read_model
from llorch.logs import get_logger
from worker_orcd.engine_info import EngineStats, Fingerprint
from worker_orcd.engines.llama_cpp.abort_switch import AbortSwitch
from worker_orcd.engines.llama_cpp.context import Context, RestoreFailed
from worker_orcd.engines.llama_cpp.decode_loop import DecodeLoop
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.determinism_proof import DeterminismProof
from worker_orcd.engines.llama_cpp.fingerprint import fingerprint
from worker_orcd.engines.llama_cpp.gpus import Gpu, list_gpus, require_gpus
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.model_digest import ModelDigest
from worker_orcd.engines.llama_cpp.model_file import UnchangedFiles
from worker_orcd.engines.llama_cpp.native import Native, load_native
from worker_orcd.engines.llama_cpp.reading_context import ReadingContext
from worker_orcd.engines.llama_cpp.session_files import SessionFiles
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.llama_cpp.text_reading import TextReading
from worker_orcd.engines.protocol import StepCallback
from worker_orcd.resident_memory import resident_mib

Command = Callable[[DecodeLoop], None]
Answer = TypeVar("Answer")
_MIB = 1024 * 1024
_log = get_logger("llama.cpp")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the load brought. `deterministic`: it was proven. `memory_mib` is what it took, per device. `reading` is the
    thread's; it ends with the model. `sessions` are None where none are kept.
    """

    model: Model
    facts: ModelFacts
    reading: TextReading
    version: str
    fingerprint: Fingerprint
    deterministic: bool
    memory_mib: tuple[int, ...]
    load_ms: int
    sessions: SessionFiles | None = None


class EngineThread:
    """`loaded` and `ended` are futures of the event loop that it is made in; `on_steps` is called there.

    Another thread that uses the model has to hold `model_lock` and to check that `closing` is not set.
    """

    def __init__(self, shape: LlamaCppShape, on_steps: StepCallback) -> None:
        self._shape = shape
        self._on_steps = on_steps
        self._event_loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._decode_loop: DecodeLoop | None = None
        self._abort_switch: AbortSwitch | None = None
        self.load_progress: float | None = None
        self.closing = threading.Event()
        self.model_lock = threading.Lock()
        self.before_model_closes: list[Callable[[], None]] = []
        """What others make of the model ends before it."""
        self.loaded: asyncio.Future[Loaded] = self._event_loop.create_future()
        self.ended: asyncio.Future[None] = self._event_loop.create_future()

    def start(self) -> None:
        """The thread never keeps the process alive: one that hangs in native code can't be ended."""
        threading.Thread(target=self._run, name="llama.cpp", daemon=True).start()

    def send(self, command: Command) -> None:
        """Carried out between two steps."""
        self._commands.put(command)

    async def ask(self, question: Callable[[DecodeLoop], Answer]) -> Answer | None:
        """As `send`; returns what it answers, or None once the thread has ended."""
        answered: asyncio.Future[Answer] = self._event_loop.create_future()
        self.send(lambda decode_loop: self._tell(_settle, answered, None, question(decode_loop)))
        either: set[asyncio.Future[Any]] = {answered, self.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return answered.result() if answered.done() else None

    def cancel(self, attempt_id: str, reason: FinishReason) -> None:
        """Ends a run within a step, or within moments while a piece of its prompt is evaluated. A model that only reads
        texts has no runs.
        """
        if self._decode_loop is None:
            return
        self.send(lambda decode_loop: decode_loop.cancel(attempt_id, reason))
        if self._abort_switch is not None:
            self._abort_switch.abort(attempt_id)

    def close(self) -> None:
        """Ends the thread after the step that it is in, or in the middle of a load; `ended` follows."""
        self.closing.set()
        self.send(_nothing)
        if self._abort_switch is not None:
            self._abort_switch.abort()

    def stats(self) -> EngineStats:
        return self._decode_loop.stats if self._decode_loop is not None else EngineStats()

    def _run(self) -> None:
        try:
            with ExitStack() as opened:
                self._load_and_serve(opened)
        except LlorchError as error:
            self._tell(_settle, self.loaded, error)
            self._tell(_settle, self.ended, error)
        except Exception as error:  # noqa: BLE001  a thread's end must not be silent: it is logged and told
            _log.error("engine_thread_failed", exc_info=error)
            failure = Internal(Reason.ENGINE_FAILED, "the engine failed; its log says how")
            self._tell(_settle, self.loaded, failure)
            self._tell(_settle, self.ended, failure)
        else:
            self._tell(_settle, self.ended, None)

    def _load_and_serve(self, opened: ExitStack) -> None:
        """Whatever is opened is closed in reverse: sequences, contexts, model. The file is looked at before native code
        sees it, which aborts on some of what a file may say.
        """
        began_at = time.monotonic()
        files = UnchangedFiles(self._shape.model_path)
        facts = read_model(self._shape.model_path)
        native = load_native()
        if self._shape.devices.kind is DeviceKind.CUDA:
            require_gpus(native, self._shape.devices)
        before = self._measure()
        digest = ModelDigest(self._shape.model_path, self._shape.digest_folder, self._goes_on)
        model = Model(native, self._shape, self._goes_on, self._hear_share)
        opened.callback(self._close_model, model)
        files.check()
        reading = TextReading(model, ReadingContext(native, model, self._shape, facts))
        opened.callback(reading.close)
        decode_loop, deterministic = None, False
        if facts.generates:
            context = Context(native, model, self._shape)
            opened.callback(context.close)
            self._abort_switch = context.abort_switch
            decode_loop = DecodeLoop(native, model, context, self._shape)
            opened.callback(decode_loop.close)
            self._decode_loop = decode_loop
            deterministic = self._prove_determinism(native, model, context)
        model_digest = digest.wait()
        deterministic = deterministic and bool(model_digest)
        after = self._measure()
        known = self._fingerprint(native, model_digest, deterministic=deterministic)
        loaded = Loaded(
            model=model,
            facts=facts,
            reading=reading,
            version=native.version,
            fingerprint=known,
            deterministic=deterministic,
            memory_mib=tuple(max(0, now - then) for then, now in zip(before, after, strict=True)),
            load_ms=round((time.monotonic() - began_at) * 1000),
            sessions=self._session_files(known) if facts.generates else None,
        )
        self._tell(_settle, self.loaded, None, loaded)
        if decode_loop is None:
            self.closing.wait()
        else:
            self._serve(decode_loop)

    def _hear_share(self, share: float) -> None:
        self.load_progress = share

    def _goes_on(self) -> bool:
        return not self.closing.is_set()

    def _prove_determinism(self, native: Native, model: Model, context: Context) -> bool:
        proof = DeterminismProof(
            native.lib, context, self._shape.slots, model.vocabulary_size, FixedChunks(self._shape.fixed_chunk)
        )
        began_at = time.monotonic()
        holds = proof.holds()
        _log.info("determinism", proven=holds, took_ms=round((time.monotonic() - began_at) * 1000))
        return holds

    def _fingerprint(self, native: Native, model_digest: str, *, deterministic: bool) -> Fingerprint:
        gpus = [gpu.description for gpu in self._gpus()]
        return fingerprint(native, self._shape, gpus, model_digest, deterministic=deterministic)

    def _session_files(self, known: Fingerprint) -> SessionFiles | None:
        """None also where the model's file changed while it was read: no later worker is known to have the same."""
        place = self._shape.sessions
        if place is None or not known.model_digest:
            return None
        return SessionFiles(place, known, self._shape.slots, SystemClock())

    def _serve(self, decode_loop: DecodeLoop) -> None:
        try:
            while not self.closing.is_set():
                self._carry_out(decode_loop)
                if decode_loop.has_work:
                    self._deliver(decode_loop.step())
        except RestoreFailed:  # no run is to blame: all of them go on with another worker
            raise
        except Exception:
            self._deliver(decode_loop.fail_all("the engine failed and ends"))
            raise

    def _carry_out(self, decode_loop: DecodeLoop) -> None:
        """The commands that are there; without work, the thread sleeps until there is one."""
        if not decode_loop.has_work:
            self._commands.get()(decode_loop)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command(decode_loop)

    def _deliver(self, steps: list[Any]) -> None:
        if steps:
            self._tell(self._on_steps, steps)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._event_loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            _log.debug("event_loop_closed")  # the process is about to exit, and no task waits any more

    def _close_model(self, model: Model) -> None:
        self.closing.set()
        for end in self.before_model_closes:
            end()
        with self.model_lock:
            model.close()

    def _gpus(self) -> list[Gpu]:
        return list_gpus() if self._shape.devices.kind is DeviceKind.CUDA else []

    def _measure(self) -> list[int]:
        """MiB in use: per GPU what is not free, or else what this process holds."""
        gpus = self._gpus()
        return [-gpu.free_bytes // _MIB for gpu in gpus] if gpus else [resident_mib()]


def _nothing(_decode_loop: DecodeLoop) -> None:
    """Wakes the thread."""


def _settle(future: "asyncio.Future[Any]", error: LlorchError | None, result: Any = None) -> None:
    """On the event loop. The waiting task may have gone; the error of a future without one must not be logged."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()
