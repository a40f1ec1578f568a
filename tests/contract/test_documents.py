"""The documents: decisions have their parts, links lead somewhere, commands exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DECISIONS = sorted(ROOT.glob("docs/adr/*.md"))
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def test_decisions_are_numbered_without_repetition() -> None:
    numbers = [file.name[:4] for file in DECISIONS]
    assert numbers
    assert all(number.isdecimal() for number in numbers)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("file", DECISIONS, ids=lambda file: file.stem)
def test_a_decision_has_context_decision_and_consequence_on_a_page(file: Path) -> None:
    text = file.read_text()
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Context", "Decision", "Consequence"]
    assert text.startswith(f"# {int(file.name[:4])}. ")
    assert len(text.split()) < 600


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(file: Path) -> None:
    for target in LINK.findall(file.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        document = (file.parent / path).resolve() if path else file
        assert document.exists(), f"{file.name} links to {target}"
        if anchor:
            assert anchor in anchors(document), f"{file.name} links to {target}"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_make_targets_that_a_document_names_exist(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", file.read_text(), re.MULTILINE))
    assert named - targets == set()


def test_every_make_target_that_help_shows_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]  # it is there
    shown = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert phony - shown == {"set-up-without-engine"}


def anchors(document: Path) -> set[str]:
    """As the usual renderers make them: lower case, punctuation gone, spaces to hyphens."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
