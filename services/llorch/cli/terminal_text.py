"""Text from elsewhere on a terminal."""

# Everything below a space but tab and newline: nobody else's text may steer a terminal.
_CONTROL = {code: None for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\t\n"}


def terminal_text(text: str) -> str:
    """The text without control characters."""
    return text.translate(_CONTROL)
