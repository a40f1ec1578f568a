"""Which engine a machine gets; above all that a machine with a GPU never gets a CPU build unasked."""

import itertools
from pathlib import Path

import pytest

from environment.engine_build import Build, Engine, Facts, choose_engine_build

DRIVER = "/proc/driver/nvidia/version"
NVCC = Path("/usr/local/cuda/bin/nvcc")
WHEEL = Path("/cache/llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl")


def facts(
    *,
    nvidia_driver: str | None = None,
    cpu_asked_for: bool = False,
    installed: Engine = Engine.NONE,
    nvcc: Path | None = None,
    cuda_wheel: Path | None = None,
    in_pip_cache: bool = False,
) -> Facts:
    return Facts(
        requirement="llama-cpp-python==0.3.36",
        pip=".venv/bin/pip",
        nvidia_driver=nvidia_driver,
        cpu_asked_for=cpu_asked_for,
        installed=installed,
        nvcc=nvcc,
        cuda_wheel=cuda_wheel,
        in_pip_cache=in_pip_cache,
    )


def test_without_a_gpu_the_engine_is_built_for_the_cpu_and_the_wait_is_told() -> None:
    plan = choose_engine_build(facts())
    assert plan.build is Build.CPU
    assert plan.environment == {"CMAKE_ARGS": "-DLLAVA_BUILD=OFF -DGGML_OPENMP=OFF -DCMAKE_CXX_FLAGS=-fno-dse"}
    assert "3-10 minutes" in plan.say


def test_a_wheel_in_pips_cache_is_not_announced_as_a_long_wait() -> None:
    assert "minutes" not in choose_engine_build(facts(in_pip_cache=True)).say


def test_an_nvcc_without_a_driver_changes_nothing() -> None:
    assert choose_engine_build(facts(nvcc=NVCC)).build is Build.CPU


@pytest.mark.parametrize("installed", [Engine.CPU, Engine.GPU])
def test_without_a_gpu_what_is_installed_stays(installed: Engine) -> None:
    assert choose_engine_build(facts(installed=installed)).build is Build.KEEP


def test_with_a_gpu_a_cuda_build_that_is_installed_stays() -> None:
    assert choose_engine_build(facts(nvidia_driver=DRIVER, installed=Engine.GPU)).build is Build.KEEP


@pytest.mark.parametrize("installed", [Engine.NONE, Engine.CPU])
def test_with_a_gpu_a_cuda_build_made_earlier_comes_before_a_new_one(installed: Engine) -> None:
    plan = choose_engine_build(facts(nvidia_driver=DRIVER, installed=installed, nvcc=NVCC, cuda_wheel=WHEEL))
    assert plan.build is Build.CUDA_WHEEL


@pytest.mark.parametrize("installed", [Engine.NONE, Engine.CPU])
def test_with_a_gpu_and_nvcc_a_cuda_build_is_made_and_the_wait_is_told(installed: Engine) -> None:
    plan = choose_engine_build(facts(nvidia_driver=DRIVER, installed=installed, nvcc=NVCC))
    assert plan.build is Build.CUDA
    assert "-DGGML_CUDA=on" in plan.environment["CMAKE_ARGS"]
    assert plan.environment["CUDACXX"] == str(NVCC)
    assert "10-30 minutes" in plan.say
    assert '.venv/bin/pip install "llama-cpp-python==0.3.36"' in plan.hint
    assert "make demo CPU=1" in plan.hint


@pytest.mark.parametrize("installed", [Engine.NONE, Engine.CPU])
def test_with_a_gpu_and_nothing_to_build_with_it_stops_and_names_the_commands(installed: Engine) -> None:
    plan = choose_engine_build(facts(nvidia_driver=DRIVER, installed=installed))
    assert plan.build is Build.STOP
    for part in (DRIVER, '.venv/bin/pip install "llama-cpp-python==0.3.36"', "cuda-toolkit", "make demo CPU=1"):
        assert part in plan.say


@pytest.mark.req("POOL-2002")
def test_no_cpu_build_gets_on_a_machine_with_a_gpu_unasked() -> None:
    for installed, nvcc, wheel, cached in itertools.product(Engine, (None, NVCC), (None, WHEEL), (False, True)):
        plan = choose_engine_build(
            facts(nvidia_driver=DRIVER, installed=installed, nvcc=nvcc, cuda_wheel=wheel, in_pip_cache=cached)
        )
        assert plan.build is not Build.CPU
        assert plan.build is not Build.KEEP or installed is Engine.GPU


@pytest.mark.parametrize(
    ("installed", "build"), [(Engine.NONE, Build.CPU), (Engine.CPU, Build.KEEP), (Engine.GPU, Build.KEEP)]
)
def test_the_cpu_is_taken_on_a_machine_with_a_gpu_when_asked_for(installed: Engine, build: Build) -> None:
    plan = choose_engine_build(facts(nvidia_driver=DRIVER, cpu_asked_for=True, installed=installed, nvcc=NVCC))
    assert plan.build is build
