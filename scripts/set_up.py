"""Make .venv, with everything that this checkout needs. Run by `make`; repeating it costs nothing.

Standard library only. This file has to be readable by any Python from 3.6, since it is the one that says
which Python is needed; everything else is in the package `environment`, beside it.
"""

import os
import shutil
import sys

NEEDED = (3, 11)
NEWER = ("python3.13", "python3.12", "python3.11", "python3.14")


def main() -> int:
    if sys.version_info < NEEDED:
        return use_newer_python()
    from environment.command_line import set_up  # an older Python can't even read it

    return set_up(sys.argv[1:])


def use_newer_python() -> int:
    """Goes on in a newer Python of this machine, if there is one."""
    for name in NEWER:
        found = shutil.which(name)
        if found:
            os.execv(found, [found, *sys.argv])  # noqa: S606  # no shell is wanted
    have = ".".join(str(part) for part in sys.version_info[:2])
    sys.stderr.write(
        f"llama-orch needs Python 3.11 or newer. {sys.executable} is Python {have}, "
        f"and none of {', '.join(NEWER)} is on the PATH.\n"
        "Install one (Debian 12, Ubuntu 24.04 or newer: sudo apt install python3 python3-venv), "
        "or name it: make PYTHON=/path/to/python3.11\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
