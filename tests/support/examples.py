"""The examples of a document, to be run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_HEADING_OR_CODE = re.compile(r"^##+ (?P<heading>[^\n]+)$|^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    heading: str
    code: str
    place: str

    def run(self) -> None:
        """As a program of its own."""
        exec(compile(self.code, self.place, "exec"), {"__name__": "__main__"})  # noqa: S102  # that is its purpose


def examples_of(document: str) -> list[Example]:
    """Its Python examples that use the SDK, in order."""
    text = (ROOT / document).read_text()
    heading, found = "", []
    for part in _HEADING_OR_CODE.finditer(text):
        heading = part["heading"] or heading
        if part["code"] and "import llorch" in part["code"]:
            line = text.count("\n", 0, part.start()) + 1
            found.append(Example(heading, part["code"], f"{document}, line {line}"))
    return found


BEYOND_THE_SIMULATION = frozenset({"Tools", "Output of a given form", "Log probabilities"})
"""Sections of docs/sdk.md about what the simulated engine does not do: they run against a scripted orchestrator."""
EXAMPLES = [*examples_of("README.md"), *examples_of("docs/sdk.md")]
