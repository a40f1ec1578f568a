"""How many examples a property is tried with: all of them, but for the inner loop, where a quarter has to do."""

import os

_SHARE = 4 if os.environ.get("LLORCH_TEST_EXAMPLES") == "quarter" else 1


def examples(full: int) -> int:
    return full // _SHARE
