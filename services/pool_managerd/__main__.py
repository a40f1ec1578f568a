"""`pool-managerd`."""

import sys
from typing import NoReturn

from llorch.quick_imports import quick_imports

with quick_imports():
    from llorch import run_daemon
    from llorch.settings import load
    from pool_managerd.app import serve
    from pool_managerd.settings import PoolManagerSettings


def main() -> NoReturn:
    settings = load(PoolManagerSettings, sys.argv[1:])
    run_daemon.run(
        lambda stop: serve(settings, stop), "pool-managerd", log_level=settings.log_level, own_log=settings.own_log
    )


if __name__ == "__main__":
    main()
