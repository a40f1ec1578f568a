"""The exception that a task group wraps."""

from llorch.errors import LlorchError


def root_of(error: BaseException) -> BaseException:
    """The exception inside of nested groups that tells most: the first `LlorchError`, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    roots = [root_of(inner) for inner in error.exceptions]
    return next((root for root in roots if isinstance(root, LlorchError)), roots[0])
