import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from llorch.logs import configure_logging, get_logger
from llorch.rpc.call_context import CallInfo, enter_call


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def configured(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, level: str = "info") -> io.StringIO:
    """Logging to `stderr`; not a fixture, because pytest puts its own stderr in place when a test begins."""
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging("gatewayd", level)
    return stderr


def test_a_line_is_json_with_level_service_and_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO())
    get_logger("routes").info("started", port=8080)
    line = json.loads(stderr.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "started", "level": "info", "service": "gatewayd", "component": "routes", "port": 8080}


def test_a_terminal_gets_readable_lines_without_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = configured(monkeypatch, Terminal())
    try:
        raise KeyError("x")
    except KeyError as error:
        get_logger("routes").error("handler_failed", exc_info=error)
    text = terminal.getvalue()
    assert "handler_failed" in text
    assert "KeyError: 'x'" in text
    assert "Traceback" not in text
    assert not text.startswith("{")


def test_secrets_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO())
    get_logger("auth").warning("refused", token="s3cret", authorization="Bearer s3cret", identity="token:1ec1c2")
    text = stderr.getvalue()
    assert "s3cret" not in text
    assert "token:1ec1c2" in text


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_secrets_in_urls_are_redacted_also_in_tracebacks(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], level: str
) -> None:
    stderr = configured(monkeypatch, kind(), level)
    url = "https://h/x.gguf?token=s3cret"
    try:
        raise KeyError(url)
    except KeyError as error:
        get_logger("staging").error(f"no {url}", source=url, error=repr(error), exc_info=error)
    text = stderr.getvalue()
    assert "s3cret" not in text
    assert text.count("token=[redacted]") >= 3


async def test_the_call_that_is_served_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO())
    enter_call(CallInfo("cor-1", "localhost", "ipv4:127.0.0.1:1", None))
    get_logger("routes").info("seen")
    assert json.loads(stderr.getvalue())["correlation_id"] == "cor-1"


def test_the_level_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO(), "warning")
    get_logger("routes").info("not_seen")
    assert stderr.getvalue() == ""
