"""The set-up from start to end."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from environment import machine, project_file, stamp
from environment.engine_build import Engine
from environment.engine_installation import install_engine
from environment.errors import SetUpError
from environment.project_file import ProjectFile
from environment.stamp import Stamp
from environment.virtual_environment import VirtualEnvironment

ROOT = Path(__file__).resolve().parents[2]
STAMP = ".llama-orch-set-up.json"


def set_up(arguments: Sequence[str]) -> int:
    """The exit code. Nothing is done where the environment's stamp says that it is as wanted."""
    options = _parse(arguments)
    project = project_file.read(ROOT / "pyproject.toml")
    engine = Engine.NONE if options.without_engine else _wanted_engine(cpu_asked_for=options.cpu)
    wanted = Stamp(project.fingerprint, "{}.{}".format(*sys.version_info), engine)
    venv = VirtualEnvironment(ROOT / ".venv", ROOT / "build" / "set-up")
    note = venv.folder / STAMP
    present = stamp.read(note)
    if present and present.satisfies(wanted) and venv.python.exists():
        return 0
    try:
        _install_all(venv, project, wanted, cpu_asked_for=options.cpu)
    except SetUpError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next run goes on where this one stopped", file=sys.stderr)
        return 130
    stamp.write(note, wanted)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="set_up.py", description="Set this checkout up in .venv.")
    parser.add_argument("--without-engine", action="store_true", help="all but the engine: enough for `make unit`")
    parser.add_argument("--cpu", action="store_true", help="take a CPU build although there is a GPU")
    return parser.parse_args(arguments)


def _wanted_engine(*, cpu_asked_for: bool) -> Engine:
    return Engine.GPU if machine.find_nvidia_driver() and not cpu_asked_for else Engine.CPU


def _install_all(venv: VirtualEnvironment, project: ProjectFile, wanted: Stamp, *, cpu_asked_for: bool) -> None:
    (venv.folder / STAMP).unlink(missing_ok=True)
    venv.ensure()
    if wanted.engine is not Engine.NONE:
        install_engine(venv, project, cpu_asked_for=cpu_asked_for)
    extras = "dev" if wanted.engine is Engine.NONE else "demo,dev"
    venv.pip(
        "install",
        ["--editable", f"{os.path.relpath(ROOT)}[{extras}]"],
        title="Installing the project and its tools (about a minute on a fast line)",
        log="packages.log",
    )
