"""llama.cpp's own server core, from the wheel `xllamacpp`, in a process of its own.

Reads one JSON command per line, `{"prompts": […], "max_tokens": N}`, answers all prompts at once, and writes one
JSON line with the tokens and the seconds it took. What it is compared with runs in the other process.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


class Peer:
    """The parent's side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def tokens_per_s(self, prompts: Sequence[str], max_tokens: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": list(prompts), "max_tokens": max_tokens}) + "\n")
        self._process.stdin.flush()
        answer = self.read()
        return float(answer["tokens"] / answer["seconds"])

    def read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the server core ended; is the wheel xllamacpp installed (the extra `bench`)?")
        answer: dict[str, float] = json.loads(line)
        return answer


@contextmanager
def open_peer(model: Path, *, slots: int, context: int, threads: int) -> Iterator[Peer]:
    command = [sys.executable, __file__, str(model), str(slots), str(context), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        peer = Peer(process)
        try:
            peer.read()
            yield peer
        finally:
            process.kill()


def _serve(model: str, slots: int, context: int, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints
    core: Any = importlib.import_module("xllamacpp")  # only here, and without types

    params = core.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.kv_unified = slots * context, slots, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    layers = -1 if os.environ.get("CUDA_VISIBLE_DEVICES") else 0  # a wheel without CUDA stays on the CPU
    params.n_gpu_layers, params.cache_ram_mib, params.verbosity = layers, 0, -1
    server = core.Server(params)

    def complete(request: tuple[str, int]) -> int:
        prompt, max_tokens = request
        options: dict[str, Any] = {**SAMPLING, "ignore_eos": True, "cache_prompt": False}
        answer = server.handle_completions({"prompt": prompt, "n_predict": max_tokens, **options})
        return int(answer["usage"]["completion_tokens"])

    with ThreadPoolExecutor(slots) as pool:
        print(json.dumps({"ready": 1}), file=answers, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            began_at = time.perf_counter()
            counts = pool.map(complete, [(prompt, command["max_tokens"]) for prompt in command["prompts"]])
            answer = {"tokens": sum(counts), "seconds": time.perf_counter() - began_at}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], *map(int, sys.argv[2:]))
