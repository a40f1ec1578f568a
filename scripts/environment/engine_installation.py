"""Carries out the plan for the engine: gathers the facts, installs or builds, and proves that it loads."""

import os
from pathlib import Path

from environment import machine
from environment.engine_build import Build, Engine, Facts, Plan, choose_engine_build
from environment.errors import SetUpError
from environment.project_file import ENGINE, ProjectFile
from environment.virtual_environment import VirtualEnvironment

AMX_PROBE = Path(__file__).resolve().parents[2] / "services/worker_orcd/engines/llama_cpp/amx_probe.py"
NO_COMPILER = "No C++ compiler is on the PATH. Debian, Ubuntu: sudo apt install g++"


def install_engine(venv: VirtualEnvironment, project: ProjectFile, *, cpu_asked_for: bool) -> None:
    """Raises SetUpError where nothing can be done without the user."""
    facts = gather_facts(venv, project, cpu_asked_for=cpu_asked_for)
    plan = choose_engine_build(facts)
    if plan.build is Build.STOP:
        raise SetUpError(plan.say)
    if plan.say:
        print(plan.say, flush=True)
    if plan.build is Build.CPU:
        _install(venv, project.engine_requirements, plan)
        if facts.in_pip_cache and not venv.engine_is_sound(AMX_PROBE):
            _build_again(venv, project, plan)
    elif plan.build is Build.CUDA:
        _install(venv, [str(_build_cuda_wheel(venv, project, plan))], plan)
    elif plan.build is Build.CUDA_WHEEL:
        _install(venv, [str(facts.cuda_wheel)], plan)
    if plan.build is not Build.KEEP:
        _prove(venv, needs_gpu=plan.build is not Build.CPU)


def gather_facts(venv: VirtualEnvironment, project: ProjectFile, *, cpu_asked_for: bool) -> Facts:
    return Facts(
        requirement=project.engine_requirement,
        pip=os.path.relpath(venv.folder / "bin" / "pip"),
        cpu_asked_for=cpu_asked_for,
        nvidia_driver=machine.find_nvidia_driver(),
        nvcc=machine.find_nvcc(),
        installed=_installed(venv, project),
        cuda_wheel=next(iter(sorted(_wheel_folder().glob(f"*-{project.engine_version}-*.whl"))), None),
        in_pip_cache=venv.has_cached_wheel(ENGINE),
    )


def _installed(venv: VirtualEnvironment, project: ProjectFile) -> Engine:
    try:
        version, gpu = venv.ask_engine()
    except SetUpError:
        return Engine.NONE
    if version != project.engine_version:
        return Engine.NONE
    return Engine.GPU if gpu else Engine.CPU


def _install(venv: VirtualEnvironment, what: tuple[str, ...] | list[str], plan: Plan, *, anew: bool = False) -> None:
    # Another build of the same version may be there, which pip would keep.
    replace = [] if plan.build is Build.CPU and not anew else ["--force-reinstall"]
    venv.pip(
        "install",
        [*replace, *what],
        title="Installing the engine",
        log="engine.log",
        environment=plan.environment,
        hint=plan.hint if machine.has_cpp_compiler() else NO_COMPILER,
    )


def _build_again(venv: VirtualEnvironment, project: ProjectFile, plan: Plan) -> None:
    """A wheel in pip's cache was built with other flags, and pip does not tell one from another."""
    print("The engine in pip's cache does not work with this processor's AMX; it is built anew, once.", flush=True)
    venv.forget_cached_wheel(ENGINE)
    _install(venv, project.engine_requirements, plan, anew=True)


def _build_cuda_wheel(venv: VirtualEnvironment, project: ProjectFile, plan: Plan) -> Path:
    """Kept in a folder of our own: pip's cache does not tell a CUDA build from a CPU build."""
    folder = _wheel_folder()
    folder.mkdir(parents=True, exist_ok=True)
    venv.pip(
        "wheel",
        [
            *("--no-deps", "--no-cache-dir", "--no-binary", ENGINE),
            *("--wheel-dir", str(folder), project.engine_requirement),
        ],
        title="Building the engine with CUDA",
        log="engine-cuda.log",
        environment=plan.environment,
        hint=plan.hint if machine.has_cpp_compiler() else NO_COMPILER,
    )
    return next(folder.glob(f"*-{project.engine_version}-*.whl"))


def _prove(venv: VirtualEnvironment, *, needs_gpu: bool) -> None:
    remedy = (
        f"If a kept wheel is at fault, remove it and try again:\n"
        f"  {venv.python} -m pip cache remove llama_cpp_python; rm -rf {_wheel_folder()}"
    )
    try:
        _, gpu = venv.ask_engine()
    except SetUpError as error:
        raise SetUpError(f"The engine was installed, but {error}.\n{remedy}") from error
    if needs_gpu and not gpu:
        raise SetUpError(f"The engine was installed, but it can't use a GPU.\n{remedy}")


def _wheel_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "llama-orch" / "wheels" / "cuda"
