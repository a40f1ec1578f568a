"""The line between the gateway and the orchestrator is away for longer than a task is kept that nothing reads."""

import asyncio
import json
from functools import partial
from pathlib import Path

import httpx

import gatewayd.app
from gatewayd.settings import GatewaySettings
from support import beside_each_other
from support.cuttable_line import cuttable
from support.streams import check_sse
from support.whole_system import _start, task, whole_system

AWAY_S = 3.5
TOKENS = 2000
"""Five seconds of them."""


async def test_a_stream_is_whole_over_a_line_that_is_away(tmp_path: Path) -> None:
    ways = {f"away for {away_s} s": partial(is_whole, away_s) for away_s in (0.5, AWAY_S)}
    await beside_each_other.run_all(tmp_path, ways)


async def is_whole(away_s: float, folder: Path) -> None:
    async with whole_system(folder) as system, cuttable(system.address) as line, asyncio.TaskGroup() as daemons:
        await system.generate(task())
        stop = asyncio.Event()
        settings = GatewaySettings(bind="127.0.0.1:0", orchestrator=line.address, address_file=folder / "second")
        address = await _start(
            daemons,
            folder / "second",
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
