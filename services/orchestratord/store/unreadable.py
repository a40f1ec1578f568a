"""The errors for the operator when the database holds something that this release can't read."""

from llorch.errors import FailedPrecondition, Reason


def unreadable(kind: str, key: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.STORE_FAILED,
        f"the orchestrator's database has {kind} '{key}' in a form that this release can't read ({why}); install the "
        "release again that wrote it, or bring back a copy of the database",
    )


def unknown_kind(kind: str, key: str) -> FailedPrecondition:
    return unreadable(kind, key, "this release knows no such kind")
