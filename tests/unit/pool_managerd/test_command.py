from dataclasses import replace
from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.engines import BY_DEVICE, EngineName
from llorch.errors import FailedPrecondition, InvalidArgument, LlorchError, NotFound, PermissionDenied, Reason
from llorch.worker_spec import WorkerSpec
from pool_managerd.devices.device import Device, DeviceState
from pool_managerd.saved_place import SavedPlace
from pool_managerd.workers.command import EnginePolicy, choose_engine, worker_command, worker_environment
from support.worker_host import worker_spec

DEVICES = {
    device_id: Device(device_id, kind, 0, device_id, 1000, 0, 0, engines=BY_DEVICE[kind])
    for device_id, kind in {
        "GPU-a": DeviceKind.CUDA,
        "GPU-b": DeviceKind.CUDA,
        "cpu": DeviceKind.CPU,
        "sim-0": DeviceKind.SIMULATED,
        "sim-1": DeviceKind.SIMULATED,
    }.items()
}
REAL_MODELS_BEHIND_SIMULATED = {
    device_id: replace(device, engines=(EngineName.llama_cpp,)) for device_id, device in DEVICES.items()
}
BOTH = {"sim-0": replace(DEVICES["sim-0"], engines=(EngineName.sim, EngineName.llama_cpp))}
CPU_ALLOWED = EnginePolicy(allow_cpu=True)


def spec_on(*device_ids: str, engine: str = "") -> WorkerSpec:
    return replace(worker_spec("file:/tiny.gguf"), device_ids=device_ids, engine=engine)


def test_a_worker_is_told_where_sessions_are_saved_and_the_key_stands_in_its_environment_alone() -> None:
    policy = EnginePolicy(allow_cpu=True, saved=SavedPlace(Path("/data/sessions"), 512, "the key"))
    command = command_on("cpu", policy)
    at = command.index("--saved-sessions-folder")
    assert command[at : at + 4] == ["--saved-sessions-folder", "/data/sessions", "--saved-sessions-mib", "512"]
    assert "the key" not in command
    choice = choose_engine(spec_on("cpu"), DEVICES, policy)
    environment = worker_environment({}, choice, access_token="a", ready_token="r", saved=policy.saved)
    assert environment["LLORCH_WORKER_SAVED_SESSIONS_KEY"] == "the key"
    assert "the key" not in repr(policy)


def test_a_worker_on_gpus_sees_these_and_no_others_in_this_order() -> None:
    choice = choose_engine(spec_on("GPU-b", "GPU-a"), DEVICES, EnginePolicy())
    assert (choice.engine, choice.device_argument) == ("llama_cpp", "cuda:GPU-b,GPU-a")
    environment = worker_environment({}, choice, access_token="a", ready_token="r")
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-a"


def test_a_worker_on_the_cpu_sees_no_gpu() -> None:
    choice = choose_engine(spec_on("cpu"), DEVICES, CPU_ALLOWED)
    assert (choice.engine, choice.device_argument, choice.on_cpu) == ("llama_cpp", "cpu", True)
    assert worker_environment({}, choice, access_token="a", ready_token="r")["CUDA_VISIBLE_DEVICES"] == ""


def test_behind_simulated_devices_runs_the_simulation() -> None:
    choice = choose_engine(spec_on("sim-0", "sim-1"), DEVICES, EnginePolicy())
    assert (choice.engine, choice.device_argument) == ("sim", "sim:sim-0,sim-1")


@pytest.mark.req("POOL-2002")
def test_a_real_model_behind_a_simulated_device_needs_the_cpu_to_be_allowed() -> None:
    with pytest.raises(PermissionDenied) as refused:
        choose_engine(spec_on("sim-0"), REAL_MODELS_BEHIND_SIMULATED, EnginePolicy())
    assert refused.value.reason is Reason.CPU_NOT_ALLOWED
    choice = choose_engine(spec_on("sim-0"), REAL_MODELS_BEHIND_SIMULATED, CPU_ALLOWED)
    assert (choice.engine, choice.device_argument) == ("llama_cpp", "cpu")


@pytest.mark.parametrize(
    ("device_ids", "error"),
    [(["GPU-x"], NotFound), (["GPU-a", "cpu"], InvalidArgument), ([], InvalidArgument), (["cpu"], PermissionDenied)],
)
def test_sets_of_devices_that_can_not_be_used_are_refused(device_ids: list[str], error: type[LlorchError]) -> None:
    with pytest.raises(error):
        choose_engine(spec_on(*device_ids), DEVICES, EnginePolicy())


def test_a_lost_device_is_refused() -> None:
    devices = {"GPU-a": replace(DEVICES["GPU-a"], state=DeviceState.LOST)}
    with pytest.raises(FailedPrecondition):
        choose_engine(spec_on("GPU-a"), devices, EnginePolicy())


def test_parameters_of_the_simulation_reach_the_simulation_only() -> None:
    policy = EnginePolicy(allow_cpu=True, sim_parameters='{"load_s": 1}')
    assert "--sim" in command_on("sim-0", policy)
    assert "--sim" not in command_on("cpu", policy)
    assert "--allow-cpu" in command_on("cpu", policy)
    assert "--allow-cpu" not in command_on("sim-0", policy)


@pytest.mark.parametrize(("devices", "is_told"), [(DEVICES, True), (REAL_MODELS_BEHIND_SIMULATED, False)])
def test_shares_go_to_engines_that_see_several_devices(devices: dict[str, Device], is_told: bool) -> None:
    spec = replace(spec_on("sim-0", "sim-1"), tensor_split=(24.0, 12.0))
    choice = choose_engine(spec, devices, CPU_ALLOWED)
    command = worker_command(
        spec,
        choice,
        CPU_ALLOWED,
        model_path=Path("/tiny.gguf"),
        bind="127.0.0.1:0",
        ready_address="127.0.0.1:1",
        log_path=Path("/log"),
        orphan_grace_s=600,
    )
    assert ("--tensor-split" in command) == is_told
    assert not is_told or command[command.index("--tensor-split") + 1] == "24,12"


def test_digests_of_files_are_kept() -> None:
    command = command_on("cpu", EnginePolicy(allow_cpu=True, digest_folder=Path("/data/digests")))
    assert command[command.index("--digest-folder") + 1] == "/data/digests"


def test_a_node_starts_the_engine_that_was_named_and_else_the_first_that_it_offers() -> None:
    assert choose_engine(spec_on("sim-0"), BOTH, CPU_ALLOWED).engine is EngineName.sim
    choice = choose_engine(spec_on("sim-0", engine="llama_cpp"), BOTH, CPU_ALLOWED)
    assert (choice.engine, choice.device_argument) == (EngineName.llama_cpp, "cpu")
    command = command_on("cpu", CPU_ALLOWED)
    assert command[command.index("--engine") + 1] == "llama_cpp"


@pytest.mark.parametrize("engine", ["sim", "vllm"])
def test_an_engine_that_a_node_does_not_offer_is_refused_with_those_that_it_does(engine: str) -> None:
    with pytest.raises(InvalidArgument, match=f"'{engine}'; on GPU-a this node runs llama_cpp") as refused:
        choose_engine(spec_on("GPU-a", engine=engine), DEVICES, EnginePolicy())
    assert refused.value.violations[0].field == "spec.engine"


def command_on(device_id: str, policy: EnginePolicy) -> list[str]:
    choice = choose_engine(spec_on(device_id), DEVICES, policy)
    spec = worker_spec("file:/tiny.gguf")
    return worker_command(
        spec,
        choice,
        policy,
        model_path=Path("/tiny.gguf"),
        bind="127.0.0.1:0",
        ready_address="127.0.0.1:1",
        log_path=Path("/logs/w-1.log"),
        orphan_grace_s=600.0,
    )


def test_secrets_are_in_the_environment_and_not_on_the_command_line() -> None:
    choice = choose_engine(spec_on("sim-0"), DEVICES, EnginePolicy())
    environment = worker_environment(
        {"PATH": "/bin", "LLORCH_POOL_MANAGER_TOKEN": "secret"}, choice, access_token="aaa", ready_token="rrr"
    )
    assert environment["LLORCH_WORKER_ACCESS_TOKEN"] == "aaa"
    assert environment["LLORCH_WORKER_READY_TOKEN"] == "rrr"
    assert environment["PATH"] == "/bin"
    assert "secret" not in environment.values()
