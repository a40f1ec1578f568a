"""Make gen/ from proto/: messages, typed stubs, gRPC stubs. Run it by `make gen`.

Everything comes from the project's own virtual environment, so that two runs give the same bytes and no network is
needed. `--googleapis-only` just copies the protos that buf needs beside ours.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"
GOOGLEAPIS = ROOT / ".deps" / "googleapis"
HEADER = '"""Generated from proto/ by `make gen`. Do not edit."""\n'


def copy_googleapis() -> None:
    """google/api and google/rpc from the installed package into an ignored folder; protoc and buf read them there."""
    import google.api

    source = Path(next(iter(google.api.__path__))).parent
    shutil.rmtree(GOOGLEAPIS, ignore_errors=True)
    for package in ("api", "rpc"):
        for proto in sorted((source / package).glob("*.proto")):
            target = GOOGLEAPIS / "google" / package / proto.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(proto, target)


def generate() -> None:
    from grpc_tools import protoc

    shutil.rmtree(GEN, ignore_errors=True)
    GEN.mkdir()
    well_known = Path(protoc.__file__).parent / "_proto"
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{GOOGLEAPIS}",
            f"-I{well_known}",
            f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={GEN}",
            f"--grpc_python_out={GEN}",
            f"--mypy_out=quiet:{GEN}",
            f"--mypy_grpc_out=quiet,only_async:{GEN}",
            *protos,
        ]
    )
    if status:
        sys.exit(status)
    for package in (GEN / "llama_orch", GEN / "llama_orch" / "v2"):
        (package / "__init__.py").write_text(HEADER)
    remove_empty_services()


def remove_empty_services() -> None:
    """protoc writes a gRPC module for every file, also for those without a service; only services have use for one."""
    for stub in sorted(GEN.rglob("*_pb2_grpc.py")):
        if "Servicer" not in stub.read_text():
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)


def plugin(name: str) -> Path:
    return Path(sys.executable).parent / name


def main() -> None:
    copy_googleapis()
    if "--googleapis-only" not in sys.argv[1:]:
        generate()


if __name__ == "__main__":
    main()
