"""What every constraint of an output can do."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]


class AnyConstraint(Protocol):
    """What the rest of one choice's output has to look like. Belongs to one thread at a time."""

    def after(self, token_ids: Sequence[int]) -> Self:
        """Another one, as this one is after an output. Raises InvalidArgument if it does not allow that output."""
        ...

    def allows(self, token_id: int) -> bool:
        """Whether this may be the next token: microseconds, where `allowed` takes up to milliseconds."""
        ...

    def allowed(self) -> TokenIds:
        """The ids of all tokens that may come next."""
        ...

    def accept(self, token_id: int) -> None:
        """The next token, one that is allowed and does not end the text."""
        ...

    @property
    def complete(self) -> bool:
        """Nothing can follow any more."""
        ...
