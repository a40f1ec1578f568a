"""How a model may be spread over several devices. Pure."""

from enum import StrEnum


class SplitMode(StrEnum):
    """AUTO: on one if it fits, else by layers. The values stand in records of models: they never change."""

    AUTO = "auto"
    LAYER = "layer"
    NONE = "none"
