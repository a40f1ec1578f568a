import asyncio
import inspect

import pytest

from llama_orch.v2 import assignment_pb2, decision_pb2, fleet_service_pb2, pool_pb2
from llorch import AsyncClient, Client, End, Started
from llorch.errors import InvalidArgument, NotFound
from llorch.sdk.blocking_stream import SyncTaskStream
from llorch.sdk.task_stream import TaskStream
from support.fake_orchestrator import APP_KEY, TASK_ID, FakeOrchestrator


async def test_the_synchronous_client_streams(address: str) -> None:
    def use() -> list[type]:
        with Client(address) as client:
            return [type(event) for event in client.generate("smollm2", "Hi")]

    kinds = await asyncio.to_thread(use)
    assert (kinds[0], kinds[-1]) == (Started, End)


async def test_the_synchronous_client_does_all_that_the_other_does(address: str, fake: FakeOrchestrator) -> None:
    def use() -> None:
        with Client(address) as client:
            assert client.submit("smollm2", "Hi") == TASK_ID
            assert "".join(client.stream(TASK_ID).text()) == "Red, green, blue."
            assert client.stream(TASK_ID).answer().text == "Red, green, blue."
            assert client.cancel(TASK_ID)
            assert [model.spec.name for model in client.models()] == ["smollm2"]
            assert client.model("smollm2").spec.name == "smollm2"
            assert client.state().version == "0.1.0"
            assert client.tasks() == []
            with pytest.raises(NotFound):
                client.model("coder")

    await asyncio.to_thread(use)


def test_every_call_is_there_for_programs_without_an_event_loop() -> None:
    calls = {name for name in dir(AsyncClient) if not name.startswith("_")} - {"address", "close"}

    for name in calls:
        assert getattr(Client, name).__wrapped__ is getattr(AsyncClient, name)
    assert {name for name in dir(Client) if not name.startswith("_")} == calls | {"address", "close"}
    assert str(inspect.signature(Client)) == str(inspect.signature(AsyncClient))


def test_its_streams_do_all_that_the_others_do() -> None:
    there, here = ({name for name in vars(kind) if not name.startswith("_")} for kind in (TaskStream, SyncTaskStream))

    assert there - {"aclose"} | {"close"} | {"task_id", "cursor"} == here


async def test_the_synchronous_client_sets_the_world_in_order(address: str, fake: FakeOrchestrator) -> None:
    fake.decisions = [decision_pb2.DecisionLog(model="coder", task_id=TASK_ID, summary="would load on GPU 0")]
    fake.states_to_come = [fake.state, fake.state]

    def use() -> None:
        with Client(address) as client:
            rule = client.assign(["garage/3090"], assignment_pb2.ASSIGNMENT_MODE_PIN, model="coder", keep_loaded=True)
            assert client.assignments() == [rule]
            assert client.explain("coder", prompt_tokens=9).summary == "would load on GPU 0"
            assert len(client.decisions(task_id=TASK_ID)) == 1
            client.unassign(rule.assignment_id)
            assert client.assignments() == []
            _, key = client.create_app("aider", models={"gpt-4o": "coder"}, weight=2)
            assert key == APP_KEY
            assert client.update_app("aider", priority="batch").weight == 2
            assert client.app("aider") == client.apps()[0]
            client.delete_app("aider")
            worker_id = client.load_model("smollm2", "garage/3090")
            assert client.unload_model("smollm2", even_if_busy=True) == [worker_id]
            assert client.release_gpu("garage/3090", for_ms=5000) == [worker_id]
            client.resume_gpu("garage/3090")
            client.drain_pool("garage", deadline_ms=5000, policy=fleet_service_pb2.DRAIN_POLICY_WAIT)
            client.reload_pool("garage")
            client.purge_pool("garage")
            assert client.pool_health("garage").pool.state == pool_pb2.POOL_STATE_DRAINING
            assert [state.version for state in client.watch_state()] == ["0.1.0", "0.1.0"]
            assert next(client.watch_state()).version == "0.1.0"
            with pytest.raises(NotFound, match="the apps are: none"):
                client.update_app("aider", weight=1)
            with pytest.raises(InvalidArgument, match="replicas_max"):
                client.assign(["attic"], assignment_pb2.ASSIGNMENT_MODE_PIN, model="coder", replicas_max=-1)
            with pytest.raises(InvalidArgument, match="duration_ms"):
                client.release_gpu("garage/3090", for_ms=2**40)
            with pytest.raises(InvalidArgument, match="deadline_ms"):
                client.drain_pool("garage", deadline_ms=2**40)

    await asyncio.to_thread(use)
    assert fake.drains_seen == [
        fleet_service_pb2.DrainPoolRequest(
            pool_id="garage", deadline_ms=5000, policy=fleet_service_pb2.DRAIN_POLICY_WAIT
        ),
        fleet_service_pb2.ReloadPoolRequest(pool_id="garage"),
        fleet_service_pb2.PurgePoolRequest(pool_id="garage"),
    ]


async def test_closing_ends_a_stream_that_is_still_open(address: str, fake: FakeOrchestrator) -> None:
    fake.hang_before_end = True

    def use() -> None:
        client = Client(address)
        stream = client.generate("smollm2", "Hi")
        assert isinstance(next(stream), Started)
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.state()

    await asyncio.to_thread(use)
