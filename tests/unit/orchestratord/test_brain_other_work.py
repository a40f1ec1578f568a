"""A model is not loaded for what it was not trained for."""

from dataclasses import replace

import pytest

from llorch.errors import InvalidArgument, Reason
from llorch.gguf.facts import Pooling
from orchestratord.core import events
from orchestratord.core.effects import StartWorker
from orchestratord.core.facts.task import TaskError
from orchestratord.core.facts.work import Work
from support.brain_driver import BrainDriver
from support.stored_database import FACTS

SOURCE = "file:/models/coder.gguf"
GENERATES = replace(FACTS, pooling=Pooling.NONE, bidirectional=False)
EMBEDS = replace(FACTS, pooling=Pooling.LAST, bidirectional=False)
ENCODES = replace(FACTS, pooling=Pooling.NONE, bidirectional=True)
RANKS = replace(FACTS, pooling=Pooling.RANK, bidirectional=True)


@pytest.fixture
def driver() -> BrainDriver:
    driver = BrainDriver()
    driver.add_node("garage")
    driver.add_model("coder")
    return driver


@pytest.mark.req("WORK-3007")
@pytest.mark.parametrize(
    ("facts", "can"),
    [
        (GENERATES, {Work.GENERATE, Work.EMBED}),
        (EMBEDS, {Work.EMBED}),
        (ENCODES, {Work.EMBED}),
        (RANKS, {Work.RERANK}),
        (replace(FACTS, pooling=None, bidirectional=False), set(Work)),
    ],
)
def test_a_task_that_a_model_was_not_trained_for_is_refused_and_loads_nothing(
    driver: BrainDriver, facts: object, can: set[Work]
) -> None:
    driver.handle(events.ModelStaged("garage", SOURCE, 100, facts))  # type: ignore[arg-type]
    for work in Work:
        if work in can:
            continue
        with pytest.raises(InvalidArgument, match=rf"^{work}: model 'coder' takes ") as refused:
            driver.submit(work=work)
        assert refused.value.reason is Reason.UNSUPPORTED_OPTION
    assert not driver.all_of(StartWorker)
    for work in can:
        assert driver.submit(work=work) in driver.state.tasks


def test_as_long_as_the_file_is_unknown_its_worker_decides(driver: BrainDriver) -> None:
    for work in Work:
        assert driver.submit(work=work) in driver.state.tasks


def test_what_waits_for_a_file_to_be_read_ends_when_it_was_and_starts_no_worker(driver: BrainDriver) -> None:
    generates, embeds = driver.submit(work=Work.GENERATE), driver.submit(work=Work.EMBED)
    driver.handle(events.ModelStaged("garage", SOURCE, 100, EMBEDS))
    terminal = driver.task(generates).terminal
    assert isinstance(terminal, TaskError)
    assert (terminal.reason, terminal.field, terminal.retryable) == (Reason.UNSUPPORTED_OPTION, "generate", False)
    assert terminal.message == "generate: model 'coder' takes embed alone, as its file says; name another model"
    assert not driver.task(embeds).is_finished
    driver.let_pass(1)
    assert driver.only(StartWorker).spec.model == "coder"


def test_where_nothing_else_waits_no_worker_is_started(driver: BrainDriver) -> None:
    driver.submit(work=Work.RERANK)
    driver.handle(events.ModelStaged("garage", SOURCE, 100, GENERATES))
    driver.let_pass(5)
    assert not driver.all_of(StartWorker)
