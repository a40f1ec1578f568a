"""What the contract's types can't hold is refused like anything else: with the name of the field."""

from collections.abc import Iterator
from contextlib import contextmanager

from llorch.errors import invalid_field


@contextmanager
def refusing(field: str, value: object) -> Iterator[None]:
    """Turns what protobuf says about a value into a refusal that names the field."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise invalid_field(field, "is not text that UTF-8 can carry") from error
    except ValueError as error:
        raise invalid_field(field, f"{value!r} is out of range") from error
    except TypeError as error:
        raise invalid_field(field, f"{value!r} is of the wrong type") from error
