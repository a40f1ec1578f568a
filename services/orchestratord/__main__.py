"""`orchestratord`, or `python -m orchestratord`."""

import sys

from llorch.quick_imports import quick_imports

with quick_imports():
    from llorch.run_daemon import run
    from llorch.settings import load
    from orchestratord import app
    from orchestratord.allocator import give_back_large_blocks
    from orchestratord.settings import OrchestratorSettings


def main() -> None:
    give_back_large_blocks()
    settings = load(OrchestratorSettings, sys.argv[1:])
    run(lambda stop: app.run(settings, stop), "orchestratord", log_level=settings.log_level, own_log=settings.own_log)


if __name__ == "__main__":
    main()
