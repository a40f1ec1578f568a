"""A build that claims AMX is tried out before it is trusted with weights."""

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from worker_orcd.engines.llama_cpp import amx

WITH: Any = SimpleNamespace(system_info=lambda: "CPU : AVX512_VNNI = 1 | AMX_INT8 = 1 | REPACK = 1")
WITHOUT: Any = SimpleNamespace(system_info=lambda: "CPU : AVX2 = 1 | REPACK = 1")


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    amx.amx_works.cache_clear()
    yield
    amx.amx_works.cache_clear()


def ends_with(monkeypatch: pytest.MonkeyPatch, code: int) -> list[Any]:
    """The trial, replaced by one that ends like this; what was run."""
    ran: list[Any] = []

    def run(command: Any, **_options: Any) -> Any:
        ran.append(command)
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_a_build_without_amx_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = ends_with(monkeypatch, -11)
    assert amx.may_repack(WITHOUT)
    assert ran == []


@pytest.mark.parametrize(("code", "works"), [(0, True), (1, False), (-11, False), (-4, False)])
def test_a_build_with_amx_has_to_pass_its_trial_once(monkeypatch: pytest.MonkeyPatch, code: int, works: bool) -> None:
    ran = ends_with(monkeypatch, code)
    assert [amx.may_repack(WITH), amx.may_repack(WITH)] == [works, works]
    assert len(ran) == 1


def test_a_trial_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Any, **_options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", run)
    assert not amx.may_repack(WITH)
