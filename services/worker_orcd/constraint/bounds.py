"""How large and how deep a constraint may be. Pure."""

from llorch.errors import InvalidArgument, Reason
from llorch.options.generation import MAX_CONSTRAINT_BYTES
from worker_orcd.run_spec import OutputConstraint


def check_size(constraint: OutputConstraint) -> None:
    """Raises InvalidArgument with both figures."""
    size = len(constraint.text.encode())
    if size > MAX_CONSTRAINT_BYTES:
        raise invalid_constraint(constraint, f"has {size} bytes; {MAX_CONSTRAINT_BYTES} are allowed")


def invalid_constraint(constraint: OutputConstraint, what: str) -> InvalidArgument:
    field = f"generate.output_constraint.{constraint.kind}"
    return InvalidArgument(Reason.INVALID_GRAMMAR, f"{field}: {what}", metadata={"field": field})
