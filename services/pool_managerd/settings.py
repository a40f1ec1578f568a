"""What an owner of a GPU host can set."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator

from llorch.engines import EngineName
from llorch.errors import LlorchError
from llorch.identifiers import check_id
from llorch.settings import auth_optional_field
from llorch.simulated_gpu import parse_simulated_gpu
from llorch.state_dir import state_dir
from llorch.token_rules import BearerToken
from pool_managerd.models.settings import ModelSettings
from pool_managerd.workers.ports import parse_worker_ports

_LABEL = re.compile(r"[A-Za-z0-9._/-]{1,63}")
_LONGEST_LABEL = 63


def _default_data_dir() -> Path:
    return state_dir() / "pool-managerd"


class PoolManagerSettings(ModelSettings, section="pool_manager"):
    """`[pool_manager]` in the settings file."""

    bind: str = Field("127.0.0.1:9200", description="Address to listen on, host:port; port 0 takes a free one.")
    orchestrator: str = Field("127.0.0.1:8090", description="Address of the orchestrator, host:port.")
    node_id: str = Field(
        default_factory=socket.gethostname,
        description="Name of this machine in the cluster. Default: its host name.",
    )
    advertise_host: str = Field(
        "",
        description="Host under which the orchestrator reaches this machine. By default the address that this "
        "machine uses toward the orchestrator.",
    )
    token: BearerToken | None = Field(
        None,
        repr=False,
        description="Bearer token, the orchestrator's: shown to it, and asked for from every caller, on this machine "
        "too. Without one, callers on this machine alone are let in.",
    )
    auth_optional: bool = auth_optional_field()
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder for records of workers and their logs. Default: `llama-orch/pool-managerd` in "
        "$XDG_STATE_HOME (~/.local/state).",
    )
    allow_cpu: bool = Field(False, description="Models may run on the CPU of this machine.")
    simulate_gpu: list[str] = Field(
        [],
        description='Imaginary GPU instead of the real ones, NAME:SIZE, e.g. "RTX 3090:24GiB"; may be repeated.',
    )
    simulated_engine: EngineName = Field(
        EngineName.sim,
        description="What runs behind simulated GPUs: made-up answers (sim), or a real model on the CPU (llama_cpp; "
        "needs allow_cpu).",
    )
    sim: str = Field("", description="Parameters of the sim engine, JSON, handed to every sim worker.")
    reserve_mib: dict[str, NonNegativeInt] = Field(
        {},
        description="Memory kept free for other programs, in MiB, per device: GPU UUID or its beginning, index, "
        "words of the card's name, sim-0, or cpu.",
    )
    pools: dict[str, list[str]] = Field(
        {},
        description="Pools besides the one of the whole machine: the devices of each, named as in reserve_mib. "
        "A pool's id is <node_id>:<name>; devices in none of them stay in the pool <node_id>.",
    )
    labels: dict[str, str] = Field(
        {}, description='Labels of this machine, e.g. zone = "attic"; shown, and there to choose machines by.'
    )
    worker_stop_grace_s: PositiveFloat = Field(
        30.0, description="Time between SIGTERM and SIGKILL for a worker that is stopped, in seconds."
    )
    worker_ports: str = Field(
        "9300-9399",
        description='Ports on which workers listen, e.g. 9300-9399; "any" lets the system choose.',
    )
    saved_sessions_mib: int = Field(
        4096,
        ge=0,
        le=16_777_216,
        description="Disk space under data_dir for the KV caches of sessions, in MiB: a worker that is unloaded leaves "
        "them there for the next one, so that a conversation goes on without its beginning being evaluated again. They "
        "hold what was said, go with their sessions, and a tenth of the disk stays free; 0 saves none.",
    )
    engine_stall_s: PositiveFloat = Field(
        30.0,
        description="A worker that does nothing for so long, in seconds, although it has work, is stuck, and is ended; "
        "one on the CPU after ten times as long.",
    )
    stop_workers_on_exit: bool = Field(
        False,
        description="End all workers when the pool manager is told to end. By default they go on, and the pool manager "
        "takes them back when it is there again. (`llorch up` sets it.)",
    )
    orphan_grace_s: float = Field(
        600.0,
        ge=1,
        description="Workers whose pool manager stays away for so long, in seconds, end by themselves.",
    )

    @field_validator("node_id")
    @classmethod
    def _node_id_is_an_id(cls, value: str) -> str:
        with _told_to_people():
            return check_id(value, "node_id")

    @field_validator("pools")
    @classmethod
    def _pools_have_names_and_devices(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        with _told_to_people():
            for name, devices in value.items():
                check_id(name, "pools")
                if not devices:
                    raise ValueError(f'the pool "{name}" names no device; name one, or take the pool out')
        return value

    @field_validator("labels")
    @classmethod
    def _labels_are_short_words(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _LABEL.fullmatch(name) or len(text) > _LONGEST_LABEL or not text.isprintable():
                raise ValueError(
                    f'"{name}" is no label: its name has 1 to 63 characters out of A-Z, a-z, 0-9, ".", "_", "/" and '
                    f'"-", its value at most {_LONGEST_LABEL} printable ones'
                )
        return value

    @field_validator("simulate_gpu")
    @classmethod
    def _gpus_can_be_read(cls, value: list[str]) -> list[str]:
        with _told_to_people():
            for text in value:
                parse_simulated_gpu(text)
        return value

    @field_validator("worker_ports")
    @classmethod
    def _ports_are_a_range(cls, value: str) -> str:
        with _told_to_people():
            parse_worker_ports(value)
        return value

    @field_validator("sim")
    @classmethod
    def _sim_is_an_object(cls, value: str) -> str:
        if value and not isinstance(json.loads(value), dict):
            raise ValueError("has to be a JSON object")
        return value


@contextmanager
def _told_to_people() -> Iterator[None]:
    """Raises a refusal of ours as the kind of error that pydantic reports."""
    try:
        yield
    except LlorchError as error:
        raise ValueError(error.violations[0].description if error.violations else error.message) from error
