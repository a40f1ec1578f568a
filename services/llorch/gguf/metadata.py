"""Metadata with types and ranges: the values of a file are checked before they are used. Pure."""

from collections.abc import Mapping

from llorch.gguf.cursor import Malformed
from llorch.gguf.header import Value

MAX_LAYERS = 512
"""llama.cpp aborts the process above this."""


class Metadata:
    """The entries of a header. Keys without `general.` and the like follow the architecture's name."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values
        self.architecture = self.text("general.architecture")

    @property
    def layer_count(self) -> int:
        return self.whole("block_count", 1, MAX_LAYERS)

    def text(self, key: str) -> str:
        value = self.values.get(key, "")
        return value if isinstance(value, str) else ""

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values

    def whole(self, key: str, least: int, most: int, *, default: int | None = None) -> int:
        """A whole number of the architecture; without a default it has to be there."""
        return self.whole_of(f"{self.architecture}.{key}", least, most, default=default)

    def whole_of(self, key: str, least: int, most: int, *, default: int | None = None) -> int:
        if key not in self.values and default is not None:
            return default
        return _checked(key, self.values.get(key), least, most)

    def per_layer(self, key: str, layers: int, *, most: int = 1 << 24, default: int = 0) -> tuple[int, ...]:
        """One number for each layer; files have either a list or one number for all."""
        full = f"{self.architecture}.{key}"
        value = self.values.get(full, default)
        if not isinstance(value, tuple):
            return (_checked(full, value, 0, most),) * layers
        if len(value) < layers:
            raise Malformed(f"has {len(value)} values in {full}, and {layers} layers")
        return tuple(_checked(full, one, 0, most) for one in value[:layers])

    def zero(self, key: str) -> Malformed:
        """What is wrong where a number that has to be above 0 is not, or is not there."""
        full = f"{self.architecture}.{key}"
        return Malformed(f"has 0 for {full}; it has to be from 1" if self.has(key) else f"does not say {full}")

    def flags_per_layer(self, key: str, layers: int) -> tuple[bool, ...] | None:
        """None if the file has no such list."""
        value = self.values.get(f"{self.architecture}.{key}")
        if not isinstance(value, tuple) or len(value) < layers:
            return None
        return tuple(bool(one) for one in value[:layers])


def _checked(key: str, value: Value | None, least: int, most: int) -> int:
    if value is None:
        raise Malformed(f"does not say {key}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"has no whole number for {key}")
    if not least <= value <= most:
        raise Malformed(f"has {value} for {key}; it has to be from {least} to {most}")
    return value
