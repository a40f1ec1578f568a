"""Every token that our documents and examples show is refused where other machines could try it."""

import re
from pathlib import Path

import pytest

from llorch.token_rules import EXAMPLE_TOKENS, LEAST_CHARACTERS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "deploy", "packaging", ".ci", ".github")
KINDS = {".md", ".toml", ".yaml", ".yml", ".json", ".env", ".service", ".conf", ".sh", ".example", ""}
READ = sorted(
    file
    for file in [*ROOT.glob("*.md"), *(found for folder in FOLDERS for found in (ROOT / folder).rglob("*"))]
    if file.is_file() and file.suffix in KINDS
)

# What stands where a token would: a variable, a command, a name in capitals, an ellipsis, sed's end, or nothing.
_PLACEHOLDER = re.compile(r"(\$.*|/|<.*>|…|\.\.\.|[A-Z_]+|TOKEN|)")
_SHOWN = (
    re.compile(r"""\b\w*(?:token|TOKEN|secret|SECRET)\s*[=:]\s*["']?([^\s"'`,;|]*)"""),
    re.compile(r"""(?:Bearer|[Aa]uthorization: bearer) ([^\s"'`,;|]+)"""),
    re.compile(r"""--(?:[a-z]+-)*token[ =]["']?([^\s"'`,;|]+)"""),
)


def tokens_in(text: str) -> set[str]:
    found = {match for pattern in _SHOWN for match in pattern.findall(text)}
    return {token for token in found if not _PLACEHOLDER.fullmatch(token)} - PROSE


PROSE = {"token", "tokens"}
"""Words that follow `bearer` in a sentence."""


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('token = "hunter2"', {"hunter2"}),
        ("LLORCH_GATEWAY_TOKEN=hunter2 gatewayd", {"hunter2"}),
        ("export LLORCH_API_TOKEN='hunter2'", {"hunter2"}),
        ("  LLORCH_API_TOKEN: hunter2", {"hunter2"}),
        ('-H "Authorization: Bearer hunter2"', {"hunter2"}),
        ("llorch ps --token hunter2", {"hunter2"}),
        ("orchestratord --metrics-token=hunter2", {"hunter2"}),
        ("LLORCH_API_TOKEN=… and `Bearer …`, --token TOKEN, a bearer token, Bearer $(cat file)", set()),
        ("sed 's/^/Authorization: Bearer /' FILE | curl -H @-", set()),
    ],
)
def test_tokens_are_found_in_whatever_form(text: str, tokens: set[str]) -> None:
    assert tokens_in(text) == tokens


def test_the_table_has_what_the_documents_show_and_nothing_else() -> None:
    shown = {token for file in READ for token in tokens_in(file.read_text())}
    assert shown == EXAMPLE_TOKENS


def test_there_are_documents_to_read() -> None:
    assert {"README.md", "SECURITY.md", "orchestrator.toml", "gpu-host.toml"} <= {file.name for file in READ}
    assert LEAST_CHARACTERS == 16
