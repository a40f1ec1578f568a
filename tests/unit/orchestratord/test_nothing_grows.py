"""Nothing that has gone leaves anything behind in the brain, in the store, or in what is counted.

`make chaos` has ten thousand of each kind come and go.
"""

from collections.abc import Callable

import pytest

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core import effects, events
from orchestratord.core.facts.calibration import MOST_CALIBRATIONS, Calibration
from orchestratord.core.facts.fleet import MOST_NODES
from orchestratord.core.learnt.estimates import Estimate
from orchestratord.core.learnt.rates import MOST_RATES, Quantity, Rate
from orchestratord.core.lives.forgetting import UNCLAIMED_FILES_KEPT
from support.brain_driver import gpu
from support.collections_in import grown
from support.short_lives import BOUNDS, HOST, LIVES, ShortLives


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_what_is_gone_leaves_nothing(life: Callable[[ShortLives, int], None]) -> None:
    brain = ShortLives()
    brain.live(life, range(10))
    brain.settle()
    before = brain.sizes()
    brain.live(life, range(10, 60))
    brain.settle()
    assert grown(before, brain.sizes(), BOUNDS) == {}


def test_of_more_nodes_than_are_kept_the_one_goes_that_was_silent_for_longest() -> None:
    """With its rows, its memory and its channel; those that are connected stay."""
    brain = ShortLives()
    for number in range(MOST_NODES + 5):
        brain.now += 1
        brain.add_node(f"node-{number}", gpu(f"GPU-of-{number}"))
        brain.handle(events.DeviceReleaseAsked(f"node-{number}", (f"GPU-of-{number}",)))
        brain.handle(events.Tick())
        brain.report(HOST)
    assert len(brain.state.fleet.nodes) == len(brain.rows["nodes"]) == MOST_NODES
    gone = [effect.node_id for effect in brain.all_of(effects.LeaveNode)]
    assert gone == [f"node-{number}" for number in range(6)]
    assert "node-0" in brain.all_of(effects.WarnOfNode)[-6].text
    assert ("node-0", "GPU-of-0") in brain.state.released, "its owner has it back, wherever it comes up again"
    brain.add_node("node-0", gpu("GPU-of-0"))
    assert ("node-0", "GPU-of-0") in brain.state.released


def test_a_node_too_many_is_refused_where_all_are_connected() -> None:
    brain = ShortLives()
    for number in range(MOST_NODES - 1):
        brain.add_node(f"node-{number}", gpu(f"GPU-of-{number}"))
    with pytest.raises(ResourceExhausted, match=f"has {MOST_NODES} nodes, all connected") as refused:
        brain.add_node("one-more", gpu("GPU-more"))
    assert refused.value.reason is Reason.TOO_MANY_CALLS
    assert "one-more" not in brain.state.fleet.nodes
    brain.add_node("node-7", gpu("GPU-of-7"))  # it is one of them


def test_what_is_learnt_of_places_and_files_is_bounded() -> None:
    """The kinds of cards and the names of files are what nodes and operators say."""
    brain = ShortLives()
    rates, calibrations = brain.state.rates, brain.state.calibrations
    for number in range(MOST_RATES + 10):
        rates.restore(Rate(Quantity.LOAD, "staying", f"node-{number}", 0, Estimate(1.0, 0.1)))
    rates.loaded("staying", "another", None, 5.0)
    gone = rates.take_forgotten()
    assert [rate.where for rate in gone] == [f"node-{number}" for number in range(11)]
    assert rates.load_ms("staying", "another") is not None
    left = []
    for number in range(MOST_CALIBRATIONS + 2):
        left += calibrations.put(Calibration("file:/x.gguf", number, 1, "f16", ("CUDA x",), (), (5,)))
    assert [calibration.context for calibration in left] == [0, 1]
    for number in range(UNCLAIMED_FILES_KEPT + 3):
        brain.handle(events.ModelStaged(HOST, f"hf:some/file-{number}", 10))
    assert len(brain.rows["sources"]) <= UNCLAIMED_FILES_KEPT + 1  # and that of the model
