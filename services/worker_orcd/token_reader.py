"""Questions about the tokens of a model, and what answers them: its vocabulary, with or without its weights. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llorch.errors import InvalidArgument, Reason
from llorch.options.checking import check_value
from llorch.options.tokens import MOST_TOKENS, TOKENIZE
from worker_orcd.engine_info import Capabilities
from worker_orcd.run_spec import RunSpec
from worker_orcd.validation import check_prompt


@dataclass(frozen=True, slots=True)
class TextToTokenize:
    """With `add_special` it is what a plain prompt of this text is."""

    text: str
    control_tokens: bool = False
    add_special: bool = True
    with_pieces: bool = False


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """`token_ids` are those of a text, `pieces` the bytes of each where they were asked for. With the count of a prompt
    comes how many tokens of context the model was trained with, 0 if that is not known.
    """

    count: int
    token_ids: Sequence[int] = ()
    pieces: Sequence[bytes] = ()
    context_trained: int = 0


TokenQuestion = RunSpec | TextToTokenize


class TokenReader(Protocol):
    """For one thread at a time, but any; nothing of it is for the event loop's."""

    @property
    def capabilities(self) -> Capabilities:
        """What prompts may have: chats, tools, texts to embed."""
        ...

    @property
    def context_trained(self) -> int:
        """In tokens; 0 if it is not known."""
        ...

    def count(self, spec: RunSpec) -> int:
        """Tokens of the prompt of a run, or of all its texts to embed, however many there are."""
        ...

    def tokenize(self, text: TextToTokenize) -> TokenAnswer:
        """With the bytes of each token if they are asked for; control tokens as they are spelled."""
        ...

    def close(self) -> None:
        """Ends what it has begun for its answers. The reader of an engine ends with the engine, too."""
        ...


def answer(reader: TokenReader, question: TokenQuestion) -> TokenAnswer:
    """Raises InvalidArgument for what a task would be refused for, except for its length."""
    if isinstance(question, RunSpec):
        check_prompt(question, reader.capabilities)
        return TokenAnswer(reader.count(question), context_trained=reader.context_trained)
    check_value("text", TOKENIZE["text"], question.text)
    answered = reader.tokenize(question)
    if answered.count > MOST_TOKENS:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"text: has {answered.count} tokens, and an answer holds at most {MOST_TOKENS}; send less text",
        )
    return answered
