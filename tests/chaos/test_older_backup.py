"""An older copy of the orchestrator's database is put back, with real processes that start anew with it."""

import shutil
from pathlib import Path

import pytest

from llama_orch.v2 import fleet_service_pb2, fleet_service_pb2_grpc, node_pb2
from llorch.rpc.client import call

from .test_orchestrator_restart import CALL_S, life, read, register, submit

DATABASE = "orchestratord"


@pytest.mark.req("ORCH-1009")
async def test_what_runs_from_an_older_copy_of_the_database_loads_and_answers(tmp_path: Path) -> None:
    copy = tmp_path.with_name(f"{tmp_path.name} copy")
    latest = 0
    for number in range(4):
        async with life(tmp_path) as (up, channel):
            stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
            state = (await call(stub.GetState, fleet_service_pb2.GetStateRequest(), timeout_s=CALL_S)).state
            if number == 0:
                await register(channel)
            assert (await read(channel, await submit(channel, f"r{number}", max_tokens=8)))[-1].HasField("end")
            assert number == 0 or state.control_epoch > latest
            latest = state.control_epoch
            up.process.terminate()
            await up.end()
        if number == 0:
            shutil.copytree(tmp_path / DATABASE, copy)
    shutil.rmtree(tmp_path / DATABASE)
    shutil.copytree(copy, tmp_path / DATABASE)
    async with life(tmp_path) as (_, channel):
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        state = (await call(stub.GetState, fleet_service_pb2.GetStateRequest(), timeout_s=CALL_S)).state
        assert state.control_epoch > latest
        assert [node.state for node in state.nodes] == [node_pb2.NODE_STATE_READY]
        assert (await read(channel, await submit(channel, "last", max_tokens=8)))[-1].HasField("end")
