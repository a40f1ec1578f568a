"""A task goes to the worker that would be done with it first, among those that it may use."""

from dataclasses import replace

import pytest

from llorch.assignment_mode import Mode
from orchestratord.core.facts.decision import Decision
from orchestratord.core.facts.fleet import Leaving, NodeState
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.sessions import Session
from orchestratord.core.facts.task import TaskRequest
from orchestratord.core.learnt.rates import Run
from orchestratord.core.placement import replicas
from orchestratord.core.placement.lanes import lane_of
from orchestratord.core.placement.workers import place_task
from support.placement import BIG, SMALL, Scene

pytestmark = pytest.mark.req("ORCH-1011")


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.node()
    scene.model("coder", 4000)
    return scene


def place(scene: Scene, **fields: object) -> Decision:
    request = TaskRequest("task", "coder", b"", "", 0, **fields)  # type: ignore[arg-type]  # tests name fields
    return place_task(scene.state, request, lane_of(scene.state, request))


def chosen(scene: Scene, **fields: object) -> str:
    decision = place(scene, **fields)
    return decision.chosen.worker_id if decision.chosen else ""


def test_no_worker_is_chosen_that_takes_no_tasks(scene: Scene) -> None:
    assert chosen(scene) == ""
    full = scene.worker("coder", 4000, slots=1, busy=1)
    assert chosen(scene) == ""
    full.attempts.clear()
    assert chosen(scene) == full.worker_id
    full.leaving = Leaving.EVICTED
    assert chosen(scene) == ""


def test_nothing_goes_to_a_node_whose_link_has_lapsed(scene: Scene) -> None:
    scene.worker("coder", 4000)
    scene.state.fleet.nodes["garage"].state = NodeState.SUSPECT
    decision = place(scene)
    assert (decision.chosen, decision.removed) == (None, {"node_ready": 1})


def test_the_one_with_more_free_slots_is_taken_while_nothing_is_known(scene: Scene) -> None:
    scene.worker("coder", 4000, busy=2)
    idle = scene.worker("coder", 4000, SMALL.device_id)
    assert chosen(scene) == idle.worker_id


def test_a_fast_card_with_company_may_beat_an_idle_slow_one(scene: Scene) -> None:
    fast = scene.worker("coder", 4000, BIG.device_id, busy=1)
    scene.worker("coder", 4000, SMALL.device_id)
    for device, per_token in ((BIG.name, {1: 10, 2: 13}), (SMALL.name, {1: 40})):
        for batch, ms in per_token.items():
            scene.state.rates.ran(run(device, batch, ms))
    decision = place(scene, max_tokens=100)
    assert decision.chosen is not None
    assert decision.chosen.worker_id == fast.worker_id
    assert [round(one.ms("decode")) for one in decision.ranked] == [1300, 4000]


def run(device: str, batch: int, ms_per_token: int) -> Run:
    return Run("", "coder", device, batch, 100, 100, 0, 101, 1, False, 100, 100 * ms_per_token)


@pytest.mark.req("ORCH-1017")
def test_a_session_is_drawn_to_where_it_is_warm_but_not_tied_to_it(scene: Scene) -> None:
    cold = scene.worker("coder", 4000, BIG.device_id)
    warm = scene.worker("coder", 4000, SMALL.device_id, busy=1)
    session = Session(app="", session_id="s", model="coder", worker_id=warm.worker_id, warm_tokens=2000)
    scene.state.sessions.put(session, scene.state.now + 60)
    asked = {"session_id": "s", "prompt_tokens": 2100, "max_tokens": 10}
    decision = place(scene, **asked)
    assert [one.worker_id for one in decision.ranked] == [warm.worker_id, cold.worker_id]
    assert decision.ranked[0].ms("prefill") < 0.1 * decision.ranked[1].ms("prefill")
    warm.attempts |= {"a", "b", "c"}
    assert chosen(scene, **asked) == cold.worker_id


@pytest.mark.req("ORCH-1012")
def test_rules_decide_which_workers_a_task_may_use(scene: Scene) -> None:
    on_big = scene.worker("coder", 4000, BIG.device_id, busy=3)
    on_small = scene.worker("coder", 4000, SMALL.device_id)
    assert chosen(scene, app="aider") == on_small.worker_id
    scene.rule(Mode.PIN, "garage/3090", model="", app="aider")
    decision = place(scene, app="aider")
    assert decision.chosen is not None
    assert (decision.chosen.worker_id, decision.pinned, decision.removed) == (on_big.worker_id, True, {"pinned": 1})
    assert chosen(scene, app="another") == on_small.worker_id
    on_big.attempts.add("one more")
    assert chosen(scene, app="aider") == "", "it waits rather than go elsewhere"


@pytest.mark.req("ORCH-1012")
def test_a_preferred_worker_is_taken_as_long_as_it_has_a_slot(scene: Scene) -> None:
    on_big = scene.worker("coder", 4000, BIG.device_id, busy=3)
    on_small = scene.worker("coder", 4000, SMALL.device_id)
    scene.rule(Mode.PREFER, "garage/3090")
    assert chosen(scene) == on_big.worker_id
    on_big.attempts.add("one more")
    assert chosen(scene) == on_small.worker_id


def test_a_prompt_goes_where_it_should_fit_and_is_never_kept_from_running_by_a_guess(scene: Scene) -> None:
    short = scene.worker("coder", 4000, BIG.device_id, context=2048)
    long = scene.worker("coder", 4000, SMALL.device_id, context=8192, busy=3)
    assert chosen(scene, prompt_tokens=3000) == long.worker_id
    long.attempts.add("one more")
    assert chosen(scene, prompt_tokens=3000) == short.worker_id


@pytest.mark.req("ORCH-1038")
def test_a_task_whose_output_has_begun_goes_on_with_the_same_fingerprint_only(scene: Scene) -> None:
    ours, other = Fingerprint("aa", ("RTX 3090",)), Fingerprint("bb", ("RTX 3060",))
    scene.worker("coder", 4000, SMALL.device_id, fingerprint=other)
    scene.worker("coder", 4000, SMALL.device_id)
    equal = scene.worker("coder", 4000, BIG.device_id, busy=3, fingerprint=ours)
    request = TaskRequest("task", "coder", b"", "", 0, deterministic=True)
    begun = replace(lane_of(scene.state, request), promise=Promise(ours))
    decision = place_task(scene.state, request, begun)
    assert [candidate.worker_id for candidate in decision.ranked] == [equal.worker_id]
    assert decision.removed == {"fingerprint": 2}
    assert replicas.workers_for(scene.state, begun) == [equal]
    assert len(replicas.workers_for(scene.state, lane_of(scene.state, request))) == 3
