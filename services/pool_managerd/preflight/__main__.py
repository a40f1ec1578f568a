"""`python -m pool_managerd.preflight`: what `llorch doctor` asks. Takes the pool manager's own flags, prints JSON."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import NoReturn

from llorch import lifeline
from llorch.logs import configure_logging
from llorch.settings import load
from pool_managerd.preflight.checks import look_at_everything
from pool_managerd.settings import PoolManagerSettings


def main() -> NoReturn:
    lifeline.end_with_parent()
    settings = load(PoolManagerSettings, sys.argv[1:])
    configure_logging("pool-managerd", "error")
    findings = asyncio.run(look_at_everything(settings))
    print(json.dumps([asdict(finding) for finding in findings]))  # noqa: T201  # its result
    sys.exit(0)


if __name__ == "__main__":
    main()
