"""The parts of the llama.cpp engine that need no native library."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from llorch.gguf.model_file import read_model
from worker_orcd.device import DeviceSet, parse_device, parse_shares
from worker_orcd.engines.llama_cpp import gpus
from worker_orcd.engines.llama_cpp.draws import draw_seed
from worker_orcd.engines.llama_cpp.threads import usable_cores


def test_a_draw_depends_on_every_part_of_its_key() -> None:
    keys = [(1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1), (2**64 - 1, 0, 0, 0)]
    seeds = {draw_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 0xFFFFFFFF for seed in seeds)
    assert draw_seed(1, 0, 0) == draw_seed(1, 0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"GGUF\x03", b"GGUF\x03\0\0\0" + bytes(100)])
def test_what_is_no_model_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"^model\.gguf is not a model") as refused:
        read_model(file)
    assert refused.value.reason is Reason.MODEL_FILE_INVALID
    assert str(tmp_path) not in refused.value.message


def test_a_missing_file_is_named_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"^the model file gone\.gguf does not exist$"):
        read_model(tmp_path / "gone.gguf")
    with pytest.raises(FailedPrecondition, match="can't be read"):
        read_model(tmp_path)


def test_devices_are_read() -> None:
    assert parse_device("cuda:GPU-1,GPU-2", allow_cpu=False) == DeviceSet(DeviceKind.CUDA, ("GPU-1", "GPU-2"))
    assert parse_device("sim:0", allow_cpu=False) == DeviceSet(DeviceKind.SIMULATED, ("0",))
    assert parse_device("cpu", allow_cpu=True) == DeviceSet(DeviceKind.CPU, ("cpu",))


@pytest.mark.req("WORK-3001")
def test_the_cpu_is_never_used_without_permission() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        parse_device("cpu", allow_cpu=False)
    assert refused.value.reason is Reason.CPU_NOT_ALLOWED


@pytest.mark.parametrize("text", ["", "cuda", "cuda:", "cuda:a,", "cpu:0", "tpu:0", "sim:"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_device(text, allow_cpu=True)


def native(*, offload: bool) -> Any:
    return SimpleNamespace(lib=SimpleNamespace(llama_supports_gpu_offload=lambda: offload))


GPU = DeviceSet(DeviceKind.CUDA, ("GPU-1",))


@pytest.mark.req("WORK-3001")
def test_a_build_without_gpu_support_is_refused_with_the_remedy() -> None:
    with pytest.raises(FailedPrecondition, match="GGML_CUDA=on") as refused:
        gpus.require_gpus(native(offload=False), GPU, {"CUDA_VISIBLE_DEVICES": "GPU-1"})
    assert refused.value.reason is Reason.GPU_BUILD_MISSING


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": "GPU-2"}])
def test_another_card_is_never_used(environment: dict[str, str]) -> None:
    with pytest.raises(FailedPrecondition, match="CUDA_VISIBLE_DEVICES=GPU-1"):
        gpus.require_gpus(native(offload=True), GPU, environment)


@pytest.mark.parametrize("seen", [0, 2])
def test_a_gpu_that_the_engine_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch, seen: int) -> None:
    monkeypatch.setattr(gpus, "list_gpus", lambda: [gpus.Gpu("RTX 3090", 0)] * seen)
    with pytest.raises(FailedPrecondition, match=f"sees {seen}"):
        gpus.require_gpus(native(offload=True), GPU, {"CUDA_VISIBLE_DEVICES": "GPU-1"})


def test_hyper_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert usable_cores(tmp_path) == 2
    assert usable_cores(tmp_path / "hidden") == 4


def test_shares_of_a_model_by_device_are_read() -> None:
    assert parse_shares("", 2) == ()
    assert parse_shares("3,1", 2) == (3.0, 1.0)


@pytest.mark.parametrize("text", ["3", "1,2,3", "a,b", "1,-1", "0,0", "inf,1", "nan,1"])
def test_shares_that_do_not_fit_the_devices_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="tensor_split"):
        parse_shares(text, 2)
