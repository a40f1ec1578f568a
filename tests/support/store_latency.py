"""`python -m support.store_latency FOLDER TASKS AT_ONCE MOST_BETWEEN_S`: how long a store takes to acknowledge tasks.

So many callers give it a task each, again and again with pauses. Prints the times in ms, as a JSON list.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from random import Random

from orchestratord.store.sqlite import open_sqlite
from support.store_writer import request


async def measure(folder: Path, tasks: int, at_once: int, most_between_s: float) -> list[float]:
    store = open_sqlite(folder)
    await store.begin_incarnation()
    chance, names = Random(tasks), [f"task-{number}" for number in range(tasks)]  # noqa: S311  not secret
    took_ms: list[float] = []

    async def caller() -> None:
        while names:
            task = request(names.pop())
            await asyncio.sleep(chance.uniform(0.0, most_between_s))
            began = time.perf_counter()
            await store.save_task(task, 1)
            took_ms.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(at_once)))
    await store.close()
    return took_ms


def main() -> None:
    folder, tasks, at_once, most_between_s = sys.argv[1:]
    took_ms = asyncio.run(measure(Path(folder), int(tasks), int(at_once), float(most_between_s)))
    print(json.dumps(took_ms))  # noqa: T201  for the test


if __name__ == "__main__":
    main()
