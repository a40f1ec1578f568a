"""The options of documents to order: `RerankWork` of the contract."""

from types import MappingProxyType

from llorch.options.generation import MAX_INPUT_BYTES
from llorch.options.option import BYTES, Option, Range, Table

MAX_DOCUMENTS = 1024

RERANK: Table = MappingProxyType(
    {
        "query": Option("The query.", Range(1, MAX_INPUT_BYTES), unit=BYTES),
        "documents": Option("The documents.", Range(1, MAX_INPUT_BYTES), unit=BYTES, entries=Range(1, MAX_DOCUMENTS)),
        "top_n": Option("How many of the best are answered.", Range(0, MAX_DOCUMENTS), "all"),
    }
)
