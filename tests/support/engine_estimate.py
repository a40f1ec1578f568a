"""What the engine itself says a model will take, without loading it."""

import json
import subprocess
import sys
from pathlib import Path

from llorch.gguf.memory_estimate import LoadShape


def ask_engine(path: Path, shape: LoadShape) -> dict[str, int]:
    """In a process of its own; bytes of weights, cache and compute."""
    flags = {
        "--model-path": str(path),
        "--slots": str(shape.slots),
        "--context-per-slot": str(shape.context_per_slot),
        "--cache-type-k": shape.cache_type_k,
        "--cache-type-v": shape.cache_type_v,
        "--device": "cpu",
    }
    given = [word for flag in flags.items() for word in flag]
    command = [sys.executable, "-m", "worker_orcd.estimate", "--allow-cpu", *given]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    uses = json.loads(done.stdout)["memory_bytes"]
    assert {use["memory"] for use in uses} <= {"CPU", "CPU_REPACK", "AMX"}
    return {part: sum(use[part] for use in uses) for part in ("weights", "cache", "compute")}
