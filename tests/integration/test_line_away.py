"""The line between the gateway and the orchestrator is away for longer than a task is kept that nothing reads."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

import gatewayd.app
from gatewayd.settings import GatewaySettings
from support.cuttable_line import cuttable
from support.streams import check_sse
from support.whole_system import _start, task, whole_system

AWAY_S = 3.5
TOKENS = 2000
"""Five seconds of them."""


@pytest.mark.parametrize("away_s", [0.5, AWAY_S])
async def test_a_stream_is_whole_over_a_line_that_is_away(tmp_path: Path, away_s: float) -> None:
    async with whole_system(tmp_path) as system, cuttable(system.address) as line, asyncio.TaskGroup() as daemons:
        await system.generate(task())
        stop = asyncio.Event()
        settings = GatewaySettings(bind="127.0.0.1:0", orchestrator=line.address, address_file=tmp_path / "second")
        address = await _start(
            daemons,
            tmp_path / "second",
            lambda file: gatewayd.app.run(settings.model_copy(update={"address_file": file}), stop),
        )
        messages = []
        body = {"model": "sim", "generate": {"prompt": "a story", "max_tokens": TOKENS}}
        async with (
            httpx.AsyncClient(base_url=f"http://{address}", timeout=30, trust_env=False) as http,
            http.stream("POST", "/v2/generate", json=body) as answer,
        ):
            async for text in answer.aiter_lines():
                if not text.startswith("data:"):
                    continue
                messages.append(json.loads(text[5:]))
                if messages[-1]["type"] == "token" and line.passes.is_set() and len(messages) < 50:
                    line.hold()
                    line.cut()
                    asyncio.get_running_loop().call_later(away_s, line.release)
        stop.set()
        check_sse(messages)
        assert messages[-1]["finish_reason"] == "length", messages[-1]
