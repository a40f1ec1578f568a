"""Models that nodes offer from a folder of their own, and where files are pulled to."""

import pytest

from llorch.errors import NotFound, Reason, Unavailable
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import NodeState, Snapshot
from orchestratord.core.facts.model import Origin
from orchestratord.core.placement import pulls
from support.brain_driver import BrainDriver, gpu, gpu_of


def offering(driver: BrainDriver, node_id: str, **offered: str) -> None:
    staged = dict.fromkeys(offered.values(), 4096)
    snapshot = Snapshot(full=True, devices=(gpu(),), staged=staged, offered=offered)
    if node_id not in driver.sessions:
        driver.add_node(node_id)
    driver.report(node_id, snapshot)


def names(driver: BrainDriver) -> list[str]:
    return [model.name for model in driver.state.catalog.all()]


def test_what_a_node_offers_is_in_the_catalog() -> None:
    driver = BrainDriver()
    offering(driver, "garage", coder="dir:coder.gguf")
    model = driver.state.catalog.get("coder")
    assert (model.spec.source, model.origin, model.provenance) == (
        "dir:coder.gguf",
        Origin.NODE,
        "models_dir of garage",
    )


def test_an_offered_model_is_looked_at_before_it_is_loaded() -> None:
    """Its memory follows from its header, which only the node can read."""
    driver = BrainDriver()
    offering(driver, "garage", coder="dir:coder.gguf")
    driver.submit("coder")
    assert driver.only(effects.StageModel).source == "dir:coder.gguf"
    driver.handle(events.ModelStaged("garage", "dir:coder.gguf", 4096))
    assert sum(driver.only(effects.StartWorker).spec.reservation_mib) > 4096


def test_a_model_leaves_the_catalog_when_the_last_node_withdraws_it() -> None:
    driver = BrainDriver()
    offering(driver, "garage", coder="dir:coder.gguf")
    offering(driver, "attic", coder="dir:coder.gguf")
    offering(driver, "garage")
    assert names(driver) == ["coder"]
    offering(driver, "attic")
    assert names(driver) == []


def test_a_model_of_a_node_that_is_away_for_a_while_stays() -> None:
    driver = BrainDriver()
    offering(driver, "garage", coder="dir:coder.gguf")
    offering(driver, "attic")
    driver.advance(30)
    driver.report("attic", Snapshot(full=True, devices=(gpu(),)))
    assert driver.state.fleet.node("garage").state is NodeState.SUSPECT
    assert names(driver) == ["coder"]


def test_a_model_in_use_stays_until_it_is_not() -> None:
    driver = BrainDriver()
    offering(driver, "garage", coder="dir:coder.gguf")
    task_id = driver.submit("coder")
    offering(driver, "garage")
    assert names(driver) == ["coder"]
    driver.handle(events.TaskCancelled(task_id))
    for load in list(driver.state.loads.values()):
        driver.state.loads.remove(load.load_id)
    offering(driver, "garage")
    assert names(driver) == []


def test_a_model_that_an_operator_named_keeps_its_name() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    offering(driver, "garage", coder="dir:coder.gguf")
    assert driver.state.catalog.get("coder").spec.source == "file:/models/coder.gguf"
    offering(driver, "garage")
    assert names(driver) == ["coder"]


def test_a_task_that_waits_for_a_download_is_told_how_far_it_is() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    task_id = driver.submit()
    driver.forget_effects()
    source = "file:/models/coder.gguf"
    driver.handle(events.ModelComing("garage", source, 1536, 4608, 85.4))
    driver.handle(events.ModelComing("garage", source, 2048, None, 0.0))
    driver.handle(events.ModelComing("attic", source, 2048, None, 0.0))
    assert driver.effects == [
        effects.Narrate(task_id, "downloading coder to garage: 1.5 of 4.5 GiB, 85 MiB/s"),
        effects.Narrate(task_id, "downloading coder to garage: 2.0 GiB"),
    ]


def test_a_pull_goes_where_the_file_is_else_to_the_largest_device() -> None:
    driver = BrainDriver()
    driver.add_node("attic", gpu_of("attic", total_mib=12288), staged={"hf:a/b:Q4_0": 100})
    driver.add_node("garage", gpu_of("garage", total_mib=24576))
    assert [node.node_id for node in pulls.nodes_for(driver.state, "hf:a/b:Q4_0", ())] == ["attic"]
    assert [node.node_id for node in pulls.nodes_for(driver.state, "hf:a/b:Q8_0", ())] == ["garage"]
    assert [n.node_id for n in pulls.nodes_for(driver.state, "hf:a/b", ("garage", "attic"))] == ["garage", "attic"]


def test_a_pull_is_refused_where_no_node_could_do_it() -> None:
    driver = BrainDriver()
    with pytest.raises(Unavailable) as refused:
        pulls.nodes_for(driver.state, "hf:a/b", ())
    assert refused.value.reason is Reason.NO_DEVICE
    driver.add_node("garage")
    driver.advance(60)
    with pytest.raises(Unavailable, match=r"no GPU host is connected \(away: garage\)"):
        pulls.nodes_for(driver.state, "hf:a/b", ())
    with pytest.raises(Unavailable, match="can't be reached"):
        pulls.nodes_for(driver.state, "hf:a/b", ("garage",))
    with pytest.raises(NotFound):
        pulls.nodes_for(driver.state, "hf:a/b", ("cellar",))


def test_a_model_is_pulled_by_its_name_a_reference_by_itself() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    assert pulls.source_of(driver.state, "coder") == "file:/models/coder.gguf"
    assert pulls.source_of(driver.state, "hf:a/b") == "hf:a/b"
    with pytest.raises(NotFound, match="coder"):
        pulls.source_of(driver.state, "codr")
