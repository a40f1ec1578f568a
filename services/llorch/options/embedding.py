"""The options of texts to embed: `EmbedWork` of the contract."""

from types import MappingProxyType

from llorch.options.generation import MAX_INPUT_BYTES
from llorch.options.option import BYTES, Option, Range, Table

EMBEDDING: Table = MappingProxyType(
    {"inputs": Option("Texts.", Range(1, MAX_INPUT_BYTES), unit=BYTES, entries=Range(1, 256))}
)
