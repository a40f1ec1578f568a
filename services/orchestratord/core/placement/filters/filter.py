"""What a filter is."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestratord.core.placement.query import Query, Site


@dataclass(frozen=True, slots=True)
class Filter:
    """Takes out places where the model can't be or must not be.

    `matters` says once per decision whether it could remove anything at all; `removes` is asked for every place, so it
    only decides; `detail` says why, to people who ask.
    """

    name: str
    removes: Callable[[Query, Site], bool]
    detail: Callable[[Query, Site], str]
    matters: Callable[[Query], bool] = lambda _: True
