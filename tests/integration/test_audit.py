"""Who changed what, as its reader gets it."""

import pytest

from llama_orch.v2 import catalog_service_pb2, meta_service_pb2, model_pb2
from llorch.errors import InvalidArgument, NotFound
from llorch.rpc.client import call
from support.whole_system import CALL_S, WholeSystem, task


@pytest.mark.req("ORCH-1032")
async def test_changes_are_listed_with_who_asked_and_work_is_not(system: WholeSystem) -> None:
    await system.generate(task())
    retire = catalog_service_pb2.SetModelStateRequest(model="nope", state=model_pb2.MODEL_STATE_RETIRED)
    with pytest.raises(NotFound):
        await call(system.catalog.SetModelState, retire, timeout_s=CALL_S)
    await call(system.catalog.DeleteModel, catalog_service_pb2.DeleteModelRequest(model="sim"), timeout_s=CALL_S)
    answer = (await system.http.get("/v2/meta/audit", params={"page_size": 1})).json()
    (newest,) = answer["entries"]
    assert (newest["action"], newest["actor"], newest["outcome"]) == ("model.deleted", "localhost", "done")
    assert newest["details"] == '{"model": "sim"}'
    request = meta_service_pb2.ListAuditRequest(page_token=answer["next_page_token"])
    earlier = await call(system.meta.ListAudit, request, timeout_s=CALL_S)
    assert [entry.action for entry in earlier.entries] == ["model.registered"]
    assert earlier.next_page_token == ""


async def test_a_page_token_of_another_list_is_refused(system: WholeSystem) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        await call(system.meta.ListAudit, meta_service_pb2.ListAuditRequest(page_token="bTE="), timeout_s=CALL_S)
