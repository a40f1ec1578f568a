"""Make gen/ from proto/: messages, typed stubs, gRPC stubs. Run it by `make gen`.

Everything comes from the project's own virtual environment, so that two runs give the same bytes and no
network is needed. `--check` generates elsewhere and fails if gen/ differs. `--googleapis-only` just copies
the protos that buf needs beside ours.
"""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"
GOOGLEAPIS = ROOT / ".deps" / "googleapis"
HEADER = '"""Generated from proto/ by `make gen`. Do not edit."""\n'


def copy_googleapis() -> None:
    """google/api and google/rpc of the installed package, into an ignored folder where protoc and buf read them."""
    import google.api

    source = Path(next(iter(google.api.__path__))).parent
    shutil.rmtree(GOOGLEAPIS, ignore_errors=True)
    for package in ("api", "rpc"):
        for proto in sorted((source / package).glob("*.proto")):
            target = GOOGLEAPIS / "google" / package / proto.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(proto, target)


def generate(target: Path) -> None:
    """Fills `target`, an empty folder."""
    from grpc_tools import protoc

    well_known = Path(protoc.__file__).parent / "_proto"
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    status = protoc.main(  # type: ignore[no-untyped-call]  # the package ships no types
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{GOOGLEAPIS}",
            f"-I{well_known}",
            f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet,only_async:{target}",
            *protos,
        ]
    )
    if status:
        sys.exit(status)
    for package in (target / "llama_orch", target / "llama_orch" / "v2"):
        (package / "__init__.py").write_text(HEADER)
    remove_empty_services(target)


def remove_empty_services(target: Path) -> None:
    """A gRPC module is written for every file, also for those without a service, which have no use for one."""
    for stub in sorted(target.rglob("*_pb2_grpc.py")):
        if "Servicer" not in stub.read_text():
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)


def plugin(name: str) -> Path:
    return Path(sys.executable).parent / name


def differences(made: Path, committed: Path) -> list[str]:
    """Files that are missing, superfluous or different, as paths below `committed`."""
    one, other = contents(made), contents(committed)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix in {".py", ".pyi"}
    }


def check() -> int:
    with tempfile.TemporaryDirectory() as made:
        generate(Path(made))
        different = differences(Path(made), GEN)
    if different:
        print("gen/ is not what proto/ gives; run `make gen`. Different:", *different, sep="\n  ", file=sys.stderr)
    return 1 if different else 0


def replace() -> int:
    shutil.rmtree(GEN, ignore_errors=True)
    GEN.mkdir()
    generate(GEN)
    return 0


def main(arguments: list[str]) -> int:
    copy_googleapis()
    if arguments == ["--googleapis-only"]:
        return 0
    return check() if arguments == ["--check"] else replace()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
