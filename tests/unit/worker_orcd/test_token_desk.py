import asyncio
import threading

import pytest

from llorch.errors import InvalidArgument, Reason, ResourceExhausted
from llorch.options.tokens import MOST_TOKENS
from worker_orcd import token_desk
from worker_orcd.engine_info import Capabilities
from worker_orcd.run_spec import Demand, Message, Role, RunSpec, Tool
from worker_orcd.token_desk import TokenDesk
from worker_orcd.token_reader import TextToTokenize, TokenAnswer, answer


class Slow:
    """Answers when the test lets it; refuses to be asked by two threads at once."""

    def __init__(self, *, waits: bool = False) -> None:
        self.capabilities = Capabilities(chat=True)
        self.context_trained = 2048
        self.may_answer = threading.Event()
        self.asked = 0
        self._busy = threading.Lock()
        if not waits:
            self.may_answer.set()

    def count(self, spec: RunSpec) -> int:
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            self.asked += 1
            assert self.may_answer.wait(10)
        finally:
            self._busy.release()
        return len(spec.prompt)

    def tokenize(self, text: TextToTokenize) -> TokenAnswer:
        return TokenAnswer(len(text.text), range(len(text.text)))

    def close(self) -> None: ...


PROMPT = RunSpec(prompt="hello")


async def test_questions_are_answered_one_after_the_other() -> None:
    desk = TokenDesk(Slow())
    answers = await asyncio.gather(*(desk.answer(PROMPT) for _ in range(5)))
    assert [answer.count for answer in answers] == [5] * 5


async def test_where_its_turn_does_not_come_a_question_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_desk, "TURN_WITHIN_S", 0.02)
    reader = Slow(waits=True)
    desk = TokenDesk(reader)
    first = asyncio.ensure_future(desk.answer(PROMPT))
    with pytest.raises(ResourceExhausted) as refused:
        await asyncio.gather(first, desk.answer(PROMPT))
    assert (refused.value.reason, refused.value.retry_after_ms) == (Reason.TOO_MANY_CALLS, 1000)
    reader.may_answer.set()
    assert (await first).count == 5
    assert (await desk.answer(PROMPT)).count == 5


async def test_a_caller_that_leaves_does_not_let_two_threads_in() -> None:
    reader = Slow(waits=True)
    desk = TokenDesk(reader)
    leaving = asyncio.ensure_future(desk.answer(PROMPT))
    async with asyncio.timeout(10):
        while not reader.asked:
            await asyncio.sleep(0.001)
    leaving.cancel()
    staying = asyncio.ensure_future(desk.answer(PROMPT))
    await asyncio.wait({staying}, timeout=0.02)
    assert reader.asked == 1
    reader.may_answer.set()
    assert (await staying).count == 5
    assert leaving.cancelled()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (RunSpec(), "generate.prompt"),
        (RunSpec(messages=(Message(Role.USER, ""),)), "generate.chat.messages"),
        (RunSpec(prompt="x", tools=(Tool("a"), Tool("a"))), "generate.chat.tools"),
        (RunSpec(prompt="x", demands=(Demand("generate.chat.tools", "tools"),)), "generate.chat.tools"),
        (TextToTokenize(""), "text"),
    ],
)
def test_what_makes_no_prompt_is_refused_by_name(spec: RunSpec | TextToTokenize, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        answer(Slow(), spec)
    assert refused.value.field == field


def test_what_makes_the_answer_only_is_not_looked_at() -> None:
    demands = (Demand("deterministic", "deterministic"), Demand("generate.output_constraint.grammar", "grammar"))
    assert answer(Slow(), RunSpec(prompt="x", demands=demands, max_tokens=0)) == TokenAnswer(1, context_trained=2048)


def test_more_tokens_than_a_message_holds_are_refused() -> None:
    assert answer(Slow(), TextToTokenize("x" * MOST_TOKENS)).count == MOST_TOKENS
    with pytest.raises(InvalidArgument) as refused:
        answer(Slow(), TextToTokenize("x" * (MOST_TOKENS + 1)))
    assert refused.value.reason is Reason.REQUEST_TOO_LARGE
