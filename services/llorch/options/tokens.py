"""The options of a text whose tokens are asked for: `TokenizeRequest` of the contract."""

from types import MappingProxyType

from llorch.options.generation import MAX_INPUT_BYTES
from llorch.options.option import BYTES, Option, Range, Table

MOST_TOKENS = 1_048_576
"""Of one answer. With the bytes of each, they fit into a message."""

TOKENIZE: Table = MappingProxyType(
    {
        "text": Option("A text.", Range(1, MAX_INPUT_BYTES), unit=BYTES),
        "control_tokens": Option(
            "Control tokens that the text spells out are control tokens, not text.", default="false"
        ),
        "add_special": Option("The token that begins a prompt is added where the model wants it.", default="true"),
        "with_pieces": Option("The bytes of each token are answered, too.", default="false"),
    }
)
