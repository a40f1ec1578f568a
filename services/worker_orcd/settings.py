"""The settings of a worker. Usually its pool manager sets them; an operator may, too."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from llorch.cache_type import CacheType
from llorch.engines import EngineName
from llorch.option_field import option_field
from llorch.options.model import MODEL
from llorch.settings import DaemonSettings


class WorkerSettings(DaemonSettings, section="worker"):
    """Secrets belong into the environment: LLORCH_WORKER_ACCESS_TOKEN, LLORCH_WORKER_READY_TOKEN
    and LLORCH_WORKER_SAVED_SESSIONS_KEY.
    """

    worker_id: str = Field("worker", description="Id under which the pool manager knows this worker.")
    bind: str = Field("127.0.0.1:0", description="Address to listen on, host:port; port 0 takes any free one.")
    access_token: str | None = Field(None, description="Secret that callers have to show.", repr=False)
    ready_address: str | None = Field(
        None, description="host:port of the pool manager that hears when this worker is ready."
    )
    ready_token: str | None = Field(None, description="Secret to show to the pool manager.", repr=False)
    orphan_grace_s: float = Field(
        600.0, ge=1, description="Seconds without the pool manager after which the worker ends by itself."
    )

    engine: EngineName = Field(EngineName.llama_cpp, description="What computes the answers.")
    model_path: Path | None = Field(None, description="The model's file, GGUF. The sim engine needs none.")
    model_name: str = Field("model", description="Name of the model in the catalog.")
    device: str = Field("", description="cuda:<uuid>[,<uuid>…], or cpu together with --allow-cpu, or sim:<id>[,<id>…].")
    allow_cpu: bool = Field(False, description="Whether the model may compute on the CPU.")
    slots: int = option_field(1, MODEL["slots"])
    context_per_slot: int = option_field(4096, MODEL["context"])
    cache_type_k: CacheType = Field(CacheType.F16, description="Type of the keys in the KV cache.")
    cache_type_v: CacheType = Field(CacheType.F16, description="Type of the values in the KV cache.")
    threads: int | None = Field(
        None, ge=1, le=512, description="Threads that compute. Default: the physical cores of this process."
    )
    split: Literal["layer", "row", "none"] = Field(
        "layer", description="How the model is spread over several devices: by layers, by rows, or only on the first."
    )
    tensor_split: str = Field(
        "", description="Shares of the model by device, like 3,1; empty: as their free memory allows."
    )
    max_decode_gap_ms: int = Field(
        200,
        ge=10,
        le=60_000,
        description="Milliseconds that a running answer may wait for its next token while prompts are evaluated.",
    )
    host_cache_mib: int = Field(
        512,
        ge=0,
        le=1_048_576,
        description="MiB of the host's memory for conversations that had to leave their slots; 0 keeps none.",
    )
    deterministic_runs: int = Field(
        4, ge=1, le=256, description="Deterministic runs at once; each costs one more call of the engine per token."
    )
    digest_folder: Path | None = Field(
        None, description="Folder where digests of model files are kept, so that a restart needs not compute them."
    )
    saved_sessions_folder: Path | None = Field(
        None, description="Folder where the KV caches of sessions are kept between this worker and the next."
    )
    saved_sessions_mib: int = Field(0, ge=0, description="The most that all of them may take, in MiB; 0 saves none.")
    saved_sessions_key: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        repr=False,
        description="Secret that proves what a worker saved: 64 hexadecimal digits. Without one, nothing is saved.",
    )
    metrics_bind: str | None = Field(
        None,
        description="Address for Prometheus metrics, host:port, answered at /metrics. Each worker of a host takes the "
        "first port that is free, of 100 from this one on; port 0 any. Default: none are served.",
    )
    metrics_token: str | None = Field(
        None, description="Secret that scrapers have to show; without one, metrics stay on this machine.", repr=False
    )
    sim: str = Field("{}", description="Parameters of the sim engine, a JSON object.")
