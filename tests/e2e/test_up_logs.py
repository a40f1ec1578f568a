"""The logs of the daemons of `llorch up` stay short while they run, and tell the end of a daemon all the same."""

import asyncio
from pathlib import Path

from support.up import running_up
from support.whole_system import wait_until

CARD = "RTX 3090:24GiB"
LIMIT = 2**20


async def test_the_log_of_a_daemon_is_rotated_while_it_runs_and_its_last_words_are_found(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[orchestrator]\nlog_limit_mib = 1\n")
    logs = tmp_path / "data" / "logs"
    async with running_up(tmp_path / "data", "--simulate-gpu", CARD, "--config", str(config)) as up:
        await up.ready()
        log = logs / "orchestratord.log"
        first = log.stat().st_ino
        with log.open("ab") as padding:  # as the daemon itself would, in days
            padding.write(b"x" * 99 + b"\n")
            padding.write((b"y" * 99 + b"\n") * (LIMIT // 100))

        async def is_rotated() -> bool:
            return log.stat().st_ino != first

        await wait_until(is_rotated, 20)
        before = logs / "orchestratord.log.1"
        assert before.stat().st_ino == first
        assert log.stat().st_size < LIMIT
        up.family()["orchestratord"].kill()
        await up.read_until("orchestratord ended by SIGKILL")
        await up.end()
    kept = await asyncio.to_thread(before.read_bytes)
    assert b'"event": "serving"' in kept
    assert {path.name for path in logs.iterdir()} == {
        "orchestratord.log", "orchestratord.log.1", "pool-managerd.log", "gatewayd.log"
    }  # fmt: skip
