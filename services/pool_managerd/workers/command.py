"""Command line and environment of a worker process. Pure."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llorch.device_kind import DeviceKind
from llorch.engines import EngineName, computes_on
from llorch.errors import FailedPrecondition, NotFound, PermissionDenied, Reason, invalid_field
from llorch.options.model import LoadOptions
from llorch.options.option import values_of
from llorch.worker_spec import WorkerSpec
from pool_managerd.devices.device import Device, DeviceState
from pool_managerd.saved_place import SavedPlace

ACCESS_TOKEN_VARIABLE = "LLORCH_WORKER_ACCESS_TOKEN"  # noqa: S105 - a name, not a secret
READY_TOKEN_VARIABLE = "LLORCH_WORKER_READY_TOKEN"  # noqa: S105 - a name, not a secret
SAVED_SESSIONS_KEY_VARIABLE = "LLORCH_WORKER_SAVED_SESSIONS_KEY"

# -P: the folder that the daemon was started in must not shadow a package.
WORKER_PROGRAM = (sys.executable, "-P", "-m", "worker_orcd")

# Fields of the spec, beside its LoadOptions, that are settings of the worker under the same name.
_PLANNED_OPTIONS = ("slots", "context_per_slot", "cache_type_k", "cache_type_v")

# What a worker inherits. Everything else, and with it every secret of the pool manager, stays here.
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "LLORCH_CONFIG",
    "LD_LIBRARY_PATH",
    "CUDA_PATH",
    "CUDA_CACHE_PATH",
)


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """What an engine may do on this host, and what it is told there."""

    allow_cpu: bool = False
    sim_parameters: str = ""  # JSON for the sim engine
    digest_folder: Path | None = None  # where workers keep the digests of model files between their starts
    saved: SavedPlace | None = None  # where they leave the KV caches of sessions for each other


@dataclass(frozen=True, slots=True)
class Launch:
    """How a process is made."""

    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    engine: EngineName
    device_argument: str
    on_cpu: bool
    visible_gpus: str


def choose_engine(spec: WorkerSpec, devices: Mapping[str, Device], policy: EnginePolicy) -> EngineChoice:
    """Raises where a device is unknown, lost or not allowed, where kinds are mixed, or the engine is not offered."""
    chosen = [_usable(device_id, devices) for device_id in spec.device_ids]
    kinds = {device.kind for device in chosen}
    if len(kinds) != 1:
        raise invalid_field("spec.device_ids", "name at least one device, and only devices of one kind")
    engine = _offered(spec.engine, chosen)
    listed = ",".join(spec.device_ids)
    match computes_on(engine, kinds.pop()):
        case DeviceKind.CUDA:
            return EngineChoice(engine, f"cuda:{listed}", on_cpu=False, visible_gpus=listed)
        case DeviceKind.SIMULATED:
            return EngineChoice(engine, f"sim:{listed}", on_cpu=False, visible_gpus="")
        case DeviceKind.CPU:
            if not policy.allow_cpu:
                raise PermissionDenied(Reason.CPU_NOT_ALLOWED, "models may not run on the CPU of this node")
            return EngineChoice(engine, "cpu", on_cpu=True, visible_gpus="")


def _offered(wanted: str, devices: Sequence[Device]) -> EngineName:
    """The engine that was named; where none was, the first that all of the devices have."""
    first, *others = devices
    common = [engine for engine in first.engines if all(engine in device.engines for device in others)]
    for engine in common:
        if wanted in (engine, ""):
            return engine
    names = ", ".join(device.name for device in devices)
    raise invalid_field(
        "spec.engine", f"is '{wanted[:80]}'; on {names} this node runs {', '.join(common) or 'no engine'}"
    )


def worker_command(
    spec: WorkerSpec,
    choice: EngineChoice,
    policy: EnginePolicy,
    *,
    model_path: Path,
    bind: str,
    ready_address: str,
    log_path: Path,
    orphan_grace_s: float,
    program: Sequence[str] = WORKER_PROGRAM,
) -> list[str]:
    planned = {name: getattr(spec, name) for name in _PLANNED_OPTIONS}
    command = [*program, "--worker-id", spec.worker_id]
    for name, value in {**values_of(LoadOptions, spec), "engine": choice.engine, **planned}.items():
        if value not in (None, ""):
            command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--model-path", str(model_path), "--model-name", spec.model]
    command += ["--device", choice.device_argument]
    if spec.tensor_split and not choice.on_cpu:  # the CPU is one device, however many are simulated before it
        command += ["--tensor-split", ",".join(f"{share:g}" for share in spec.tensor_split)]
    command += ["--bind", bind, "--ready-address", ready_address]
    command += ["--orphan-grace-s", f"{orphan_grace_s:g}", "--log-file", str(log_path)]
    if choice.on_cpu:
        command.append("--allow-cpu")
    if policy.digest_folder is not None:
        command += ["--digest-folder", str(policy.digest_folder)]
    if policy.saved is not None:
        command += ["--saved-sessions-folder", str(policy.saved.folder)]
        command += ["--saved-sessions-mib", str(policy.saved.budget_mib)]
    if choice.engine is EngineName.sim and policy.sim_parameters:
        command += ["--sim", policy.sim_parameters]
    return command


def worker_environment(
    inherited: Mapping[str, str],
    choice: EngineChoice,
    *,
    access_token: str,
    ready_token: str,
    saved: SavedPlace | None = None,
) -> dict[str, str]:
    environment = {name: inherited[name] for name in _INHERITED if name in inherited}
    environment["PYTHONUNBUFFERED"] = "1"  # the last lines of a crash must reach the log
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environment["CUDA_VISIBLE_DEVICES"] = choice.visible_gpus
    environment[ACCESS_TOKEN_VARIABLE] = access_token
    environment[READY_TOKEN_VARIABLE] = ready_token
    if saved is not None:
        environment[SAVED_SESSIONS_KEY_VARIABLE] = saved.key
    return environment


def _usable(device_id: str, devices: Mapping[str, Device]) -> Device:
    device = devices.get(device_id)
    if device is None:
        raise NotFound(
            Reason.DEVICE_NOT_FOUND, f'no device "{device_id}" on this node; it has {", ".join(devices) or "none"}'
        )
    if device.state is not DeviceState.OK:
        raise FailedPrecondition(
            Reason.DEVICE_NOT_FOUND, f'device "{device_id}" ({device.name}) does not answer its driver any more'
        )
    return device
