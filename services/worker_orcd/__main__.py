"""`worker-orcd`, and `python -m worker_orcd`."""

import asyncio
import sys

from llorch.quick_imports import quick_imports

with quick_imports():
    from llorch.run_daemon import run
    from llorch.settings import load
    from worker_orcd import app
    from worker_orcd.settings import WorkerSettings


def main() -> None:
    settings = load(WorkerSettings, sys.argv[1:])

    async def serve(stop: asyncio.Event) -> None:
        await app.run(settings, stop)

    run(serve, "worker-orcd", log_level=settings.log_level, own_log=settings.own_log)


if __name__ == "__main__":
    main()
