"""No secret of a URL is shown, whatever stands around it."""

import json

import pytest

from llorch.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/x.gguf", "https://h/x.gguf"),
        ("https://h:8443/@scope/x.gguf", "https://h:8443/@scope/x.gguf"),
        ("https://[::1]:8443/@scope/x.gguf", "https://[::1]:8443/@scope/x.gguf"),
        ("https://h/x.gguf?download=true", "https://h/x.gguf?download=true"),
        ("https://h/x.gguf?token=SECRET", "https://h/x.gguf?token=[redacted]"),
        (
            "https://h/x?X-Amz-Date=SECRET&X-Amz-Signature=SECRET",
            "https://h/x?X-Amz-Date=[redacted]&X-Amz-Signature=[redacted]",
        ),
        ("https://h/x?SECRET", "https://h/x?[redacted]"),
        ("https://h/x?a=SECRET?b=SECRET", "https://h/x?a=[redacted]"),
        ("https://h/x?token=SECRET#sha256=00ff", "https://h/x?token=[redacted]#sha256=00ff"),
        ("https://h/x#token=SECRET", "https://h/x#[redacted]"),
        ("https://me:SECRET@h/x.gguf", "https://[redacted]@h/x.gguf"),
        ("https://SECRET@h/x.gguf", "https://[redacted]@h/x.gguf"),
        ("https://me:SEC/RET@h/x.gguf", "https://[redacted]@h/x.gguf"),
        ("https://me:SEC@RET@h/x.gguf", "https://[redacted]@h/x.gguf"),
        ("https:me:SECRET@h/x.gguf", "https:[redacted]@h/x.gguf"),
        ("http:/me:SECRET@h/x.gguf", "http:/[redacted]@h/x.gguf"),
        ("HTTPS://me:SECRET@h/x.gguf", "HTTPS://[redacted]@h/x.gguf"),
        ("ftp://me:SECRET@h/x.gguf", "ftp://[redacted]@h/x.gguf"),
        ("source: 'https://h/x?t=SECRET' has no kind.", "source: 'https://h/x?t=[redacted]' has no kind."),
        ("'https://me:SEC'RET@h/x': no", "'https://[redacted]@h/x': no"),
        ('"https://h/x?t=SECRET": it is text', '"https://h/x?t=[redacted]": it is text'),
        ("https://h/x?t=SECRET, and https://me:SECRET@h", "https://h/x?t=[redacted], and https://[redacted]@h"),
        ("hf:org/repo:Q4_K_M@main", "hf:org/repo:Q4_K_M@main"),
        ("file:/models/me@home.gguf", "file:/models/me@home.gguf"),
        ("a plain text", "a plain text"),
    ],
)
def test_a_url_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert "SECRET" not in shown
    assert redacted(text) == shown
    assert redacted(shown) == shown, "what is redacted stays as it is"


def test_json_stays_json() -> None:
    details = json.dumps({"spec": {"source": "https://me:SECRET@h/x?t=SECRET", "slots": 2}})
    assert json.loads(redacted(details)) == {"spec": {"source": "https://[redacted]@h/x?t=[redacted]", "slots": 2}}
