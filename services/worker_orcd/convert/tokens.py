"""Questions about tokens, and their answers."""

from llama_orch.v2 import tokens_pb2
from llorch.errors import invalid_field
from worker_orcd.convert.run_spec import to_run_spec
from worker_orcd.token_reader import TextToTokenize, TokenAnswer, TokenQuestion


def to_question(proto: tokens_pb2.TokenQuestion) -> TokenQuestion:
    kind = proto.WhichOneof("question")
    if kind is None:
        raise invalid_field("question", "one of prompt and text has to be set")
    if kind == "prompt":
        return to_run_spec(proto.prompt)
    text = proto.text
    return TextToTokenize(text.text, text.control_tokens, text.add_special, text.with_pieces)


def to_answer(answer: TokenAnswer) -> tokens_pb2.TokenAnswer:
    return tokens_pb2.TokenAnswer(
        count=answer.count,
        token_ids=answer.token_ids,
        pieces=answer.pieces,
        context_trained=answer.context_trained,
    )


def question_of_bytes(content: bytes) -> TokenQuestion:
    """As the pool manager hands it on."""
    return to_question(tokens_pb2.TokenQuestion.FromString(content))


def answer_to_bytes(answer: TokenAnswer) -> bytes:
    return to_answer(answer).SerializeToString()
