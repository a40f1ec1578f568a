"""In which type the KV cache keeps its numbers. Pure."""

from enum import StrEnum


class CacheType(StrEnum):
    """The values stand in records of models, in settings and on the command line: they never change."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"
