"""What the engine is told to load, and the sizes that follow from it. Pure."""

from dataclasses import dataclass, field
from pathlib import Path

from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.errors import invalid_field
from llorch.gguf.memory_estimate import tokens_at_once, uses_flash_attention
from worker_orcd.device import DeviceSet, parse_device, parse_shares
from worker_orcd.engines.llama_cpp.sessions_on_disk import SessionsOnDisk
from worker_orcd.settings import WorkerSettings

_SMALLEST_PIECE = 16
_SMALLEST_PIECE_FLASH_CPU = 64

_FIXED_CHUNK = {DeviceKind.CUDA: 256}
_FIXED_CHUNK_CPU = 32


@dataclass(frozen=True, slots=True)
class LlamaCppShape:
    """`model` is the name in the catalog. Contexts are in tokens, per slot. `deterministic_runs` is how many
    deterministic runs there may be at once; in `digest_folder` the digests of model files are kept.
    `decode_gap_s` is how long a running answer may wait for its next token while prompts are evaluated.
    `host_cache_bytes` of the host's memory hold conversations that had to leave their slots. `split` and
    `tensor_split` say how the model is spread over several devices: the shares by device, or none for as it fits.
    `sessions` is where those are saved between two workers; None for nowhere.
    """

    model_path: Path
    model: str
    devices: DeviceSet
    slots: int
    context_per_slot: int
    cache_type_k: CacheType = CacheType.F16
    cache_type_v: CacheType = CacheType.F16
    threads: int = field(kw_only=True)
    deterministic_runs: int = 4
    digest_folder: Path | None = None
    decode_gap_s: float = 0.2
    host_cache_bytes: int = 0
    split: str = "layer"
    tensor_split: tuple[float, ...] = ()
    sessions: SessionsOnDisk | None = None

    @property
    def flash_attention(self) -> bool:
        return uses_flash_attention(self.cache_type_v, on_gpu=self.devices.kind is DeviceKind.CUDA)

    @property
    def compute_tokens(self) -> int:
        """Most tokens that are computed at once, whatever the size of a batch."""
        return tokens_at_once(flash_attention=self.flash_attention)

    @property
    def smallest_piece(self) -> int:
        """Tokens of a prompt below which a piece is hardly faster than one of this size."""
        on_cpu = self.devices.kind is not DeviceKind.CUDA
        return _SMALLEST_PIECE_FLASH_CPU if self.flash_attention and on_cpu else _SMALLEST_PIECE

    @property
    def fixed_chunk(self) -> int:
        """Tokens of a prompt that a deterministic run evaluates at once: what a device of this kind does in a
        fraction of a second. At most BATCH_TOKENS, and half of the context.
        """
        return min(_FIXED_CHUNK.get(self.devices.kind, _FIXED_CHUNK_CPU), self.context_per_slot // 2)


def shape_of(settings: WorkerSettings, cores: int) -> LlamaCppShape:
    """What the settings say to load, with as many threads as `cores` where they do not say how many."""
    devices = parse_device(settings.device, allow_cpu=settings.allow_cpu)
    if settings.model_path is None:
        raise invalid_field("model_path", "the llama_cpp engine needs the model's file")
    if devices.kind is DeviceKind.SIMULATED and not settings.allow_cpu:
        parse_device("cpu", allow_cpu=False)
    return LlamaCppShape(
        model_path=settings.model_path,
        model=settings.model_name,
        devices=devices,
        slots=settings.slots,
        context_per_slot=settings.context_per_slot,
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        threads=settings.threads or cores,
        split=settings.split,
        tensor_split=parse_shares(settings.tensor_split, len(devices.ids)),
        decode_gap_s=settings.max_decode_gap_ms / 1000,
        host_cache_bytes=settings.host_cache_mib * 1024 * 1024,
        deterministic_runs=settings.deterministic_runs,
        digest_folder=settings.digest_folder,
        sessions=_sessions(settings),
    )


def _sessions(settings: WorkerSettings) -> SessionsOnDisk | None:
    folder, key, mib = settings.saved_sessions_folder, settings.saved_sessions_key, settings.saved_sessions_mib
    if folder is None or not key or not mib:
        return None
    return SessionsOnDisk(folder, bytes.fromhex(key), mib * 2**20)
