"""`gatewayd`, and `python -m gatewayd`."""

import asyncio
import sys

from llorch.quick_imports import quick_imports

with quick_imports():
    from gatewayd import app
    from gatewayd.settings import GatewaySettings
    from llorch.run_daemon import run
    from llorch.settings import load


def main() -> None:
    settings = load(GatewaySettings, sys.argv[1:])

    async def serve(stop: asyncio.Event) -> None:
        await app.run(settings, stop)

    run(serve, "gatewayd", log_level=settings.log_level, own_log=settings.own_log)


if __name__ == "__main__":
    main()
