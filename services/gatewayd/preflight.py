"""`python -m gatewayd.preflight`: whether a start would take the settings. `llorch doctor` asks.

It takes the gateway's own flags, prints nothing and changes nothing; what can't be right is told as a start tells it,
with the same exit code.
"""

import sys
from typing import NoReturn

from gatewayd.settings import GatewaySettings
from llorch import lifeline
from llorch.settings import load


def main() -> NoReturn:
    lifeline.end_with_parent()
    load(GatewaySettings, sys.argv[1:])
    sys.exit(0)


if __name__ == "__main__":
    main()
