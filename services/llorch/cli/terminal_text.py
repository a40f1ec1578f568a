"""Text from elsewhere on a terminal."""

# All control characters but tab and newline: text of models and other machines must not control a terminal.
_CONTROL = {code: None for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\t\n"}


def terminal_text(text: str) -> str:
    """The text without control characters."""
    return text.translate(_CONTROL)
