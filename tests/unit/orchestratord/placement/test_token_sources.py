"""Who is asked about the tokens of a model: who has it loaded, then who has its file."""

from dataclasses import replace

import pytest

from llorch.engines import EngineName
from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Leaving, NodeState
from orchestratord.core.facts.model import Origin
from orchestratord.core.placement.token_sources import TokenSource, token_sources
from support.placement import Scene, card

GPU = card(engines=("llama_cpp",))
IMAGINARY = card("sim-0", engines=("sim", "llama_cpp"))
FILE = "file:/coder.gguf"
REMOTE = "hf:org/coder:Q4_K_M"


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.node("attic", GPU)
    scene.node("garage", IMAGINARY)
    scene.model("coder", 4000)
    return scene


def sources(scene: Scene, model: str = "coder") -> list[TokenSource]:
    before = repr(scene.state)
    found = token_sources(scene.state, scene.state.catalog.get(model))
    assert repr(scene.state) == before
    assert scene.state.outbox == []
    return found


def nodes(scene: Scene) -> list[str]:
    return [source.node_id for source in sources(scene) if not source.worker_id]


def workers(scene: Scene) -> list[str]:
    return [source.worker_id for source in sources(scene) if source.worker_id]


def test_workers_come_first_and_of_these_the_one_with_the_least_to_do(scene: Scene) -> None:
    busy = scene.worker("coder", 4000, "sim-0", busy=2)
    idle = scene.worker("coder", 4000, GPU.device_id, node_id="attic")
    leaving = scene.worker("coder", 4000, "sim-0")
    leaving.leaving = Leaving.EVICTED
    assert workers(scene) == [idle.worker_id, busy.worker_id, leaving.worker_id]
    assert [source.worker_id != "" for source in sources(scene)] == [True, True, True, False, False]


def test_a_full_worker_is_asked_too(scene: Scene) -> None:
    assert workers(scene) == []
    full = scene.worker("coder", 4000, "sim-0", slots=1, busy=1)
    assert workers(scene) == [full.worker_id]


def test_no_worker_is_asked_that_does_not_answer_or_is_not_of_this_file(scene: Scene) -> None:
    worker = scene.worker("coder", 4000, "sim-0")
    worker.state = WorkerState.STARTING
    assert workers(scene) == []
    worker.state = WorkerState.READY
    worker.attached = False
    assert workers(scene) == []
    worker.attached = True
    scene.state.fleet.nodes["garage"].state = NodeState.SUSPECT
    assert workers(scene) == []
    scene.state.fleet.nodes["garage"].state = NodeState.READY
    assert workers(scene) == [worker.worker_id]
    worker.spec = replace(worker.spec, source="file:/older.gguf")
    assert workers(scene) == []


def test_nodes_that_hold_the_file_come_before_those_that_may(scene: Scene) -> None:
    assert nodes(scene) == ["attic", "garage"]
    scene.state.fleet.nodes["garage"].staged[FILE] = 4000
    assert nodes(scene) == ["garage", "attic"]
    scene.state.fleet.nodes["garage"].state = NodeState.SUSPECT
    assert nodes(scene) == ["attic"]


def test_what_would_have_to_be_downloaded_is_looked_for_only_where_it_is(scene: Scene) -> None:
    spec = replace(scene.state.catalog.get("coder").spec, source=REMOTE)
    scene.state.catalog.register(spec, Origin.CALL, "a test", 0)
    assert sources(scene) == []
    scene.state.fleet.nodes["garage"].staged[REMOTE] = 4000
    assert nodes(scene) == ["garage"]


def test_a_node_answers_as_the_engine_that_would_run_the_model_there(scene: Scene) -> None:
    assert [source.engine for source in sources(scene)] == ["llama_cpp", "sim"]
    scene.model("real", 4000, engine=EngineName.llama_cpp)
    assert [source.engine for source in sources(scene, "real")] == ["llama_cpp", "llama_cpp"]
    scene.model("made-up", 4000, engine=EngineName.sim)
    assert sources(scene, "made-up") == [TokenSource("garage", engine="sim")]


def test_a_node_that_reports_no_engine_is_not_asked(scene: Scene) -> None:
    scene.node("attic", card())
    assert nodes(scene) == ["garage"]
