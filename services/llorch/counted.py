"""Numbers of things, for people: 1 task, 2 tasks."""


def counted(count: int, noun: str) -> str:
    """The noun in the singular; its plural has an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
