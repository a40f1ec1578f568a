"""How large and how deep a constraint may be. Pure."""

from llorch.errors import InvalidArgument, Reason
from worker_orcd.run_spec import OutputConstraint

MAX_BYTES = 64 * 1024
MAX_NESTING = 200


def check_size(constraint: OutputConstraint) -> None:
    """Raises InvalidArgument with both figures."""
    size = len(constraint.text.encode())
    if size > MAX_BYTES:
        raise invalid_constraint(constraint, f"has {size} bytes; {MAX_BYTES} are allowed")


def invalid_constraint(constraint: OutputConstraint, what: str) -> InvalidArgument:
    field = f"generate.output_constraint.{constraint.kind}"
    return InvalidArgument(Reason.INVALID_GRAMMAR, f"{field}: {what}", metadata={"field": field})
