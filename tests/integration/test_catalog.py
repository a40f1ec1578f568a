"""The catalog as its owner uses it, and what of it is there after a restart."""

import hashlib
import os
from pathlib import Path

import pytest

from llama_orch.v2 import catalog_service_pb2 as pb2
from llama_orch.v2 import meta_service_pb2, model_pb2
from llorch.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from llorch.rpc.client import call
from orchestratord.store.sql import SqlStore
from support.whole_system import CALL_S, WholeSystem, gguf, orchestrator_alone, task, whole_system

NAN = float("nan")


async def shown(system: WholeSystem, name: str) -> model_pb2.Model:
    return (await call(system.catalog.GetModel, pb2.GetModelRequest(model=name), timeout_s=CALL_S)).model


async def register(system: WholeSystem, spec: model_pb2.ModelSpec) -> model_pb2.Model:
    return (await call(system.catalog.RegisterModel, pb2.RegisterModelRequest(model=spec), timeout_s=CALL_S)).model


def file(system: WholeSystem, name: str = "own.gguf") -> str:
    return f"file:{gguf(system.folder, name)}"


async def verify(system: WholeSystem, name: str) -> list[pb2.NodeVerification]:
    answer = await call(system.catalog.VerifyModel, pb2.VerifyModelRequest(model=name), timeout_s=CALL_S)
    return list(answer.nodes)


@pytest.mark.req("ORCH-1019")
async def test_what_was_registered_retired_and_learnt_is_there_after_a_restart(tmp_path: Path) -> None:
    async with whole_system(tmp_path) as system:
        await system.generate(task())
        await register(system, model_pb2.ModelSpec(name="own", source=file(system), aliases=["mine"], slots=2))
        await register(system, model_pb2.ModelSpec(name="gone", source=file(system)))
        await call(system.catalog.DeleteModel, pb2.DeleteModelRequest(model="gone"), timeout_s=CALL_S)
        retired = pb2.SetModelStateRequest(model="mine", state=model_pb2.MODEL_STATE_RETIRED)
        await call(system.catalog.SetModelState, retired, timeout_s=CALL_S)
        created = (await shown(system, "own")).create_time
    async with whole_system(tmp_path) as system:
        own = await shown(system, "mine")
        assert (own.spec.name, own.spec.slots, own.state) == ("own", 2, model_pb2.MODEL_STATE_RETIRED)
        assert own.create_time == created
        assert own.origins["slots"] == model_pb2.VALUE_ORIGIN_CALL
        assert own.origins["context"] == model_pb2.VALUE_ORIGIN_MODEL
        assert (await shown(system, "sim")).HasField("size_mib")
        with pytest.raises(NotFound, match="nearest names are"):
            await shown(system, "gone")


async def test_a_model_runs_on_the_engine_that_it_names_or_is_told_that_no_device_has_it(system: WholeSystem) -> None:
    (ledger,) = (await system.state()).devices
    assert list(ledger.device.engines) == ["sim"]
    for engine in ("llama_cpp", "sim"):
        spec = model_pb2.ModelSpec(name=engine, source=f"file:{gguf(system.folder)}", slots=1, engine=engine)
        assert (await register(system, spec)).spec.engine == engine
    with pytest.raises(Unavailable, match="runs the engine llama_cpp that it names") as refused:
        await system.generate(task(model="llama_cpp"))
    assert refused.value.reason is Reason.NO_DEVICE
    *_, last = await system.generate(task(model="sim"))
    assert last.HasField("end")
    (worker,) = (await system.state()).workers
    assert (worker.spec.engine, worker.engine.engine) == ("sim", "sim")


@pytest.mark.req("ORCH-1019")
async def test_a_model_is_verified_on_the_nodes_that_hold_it(system: WholeSystem) -> None:
    path = gguf(system.folder)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    await register(system, model_pb2.ModelSpec(name="elsewhere", source="hf:org/repo"))
    with pytest.raises(FailedPrecondition, match="llorch pull elsewhere") as nowhere:
        await verify(system, "elsewhere")
    assert nowhere.value.reason is Reason.MODEL_FILE_MISSING
    await system.generate(task())
    assert await verify(system, "sim") == [pb2.NodeVerification(node_id="garage", ok=True, digest=right)]
    assert (await shown(system, "sim")).digest == right
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    (changed,) = await verify(system, "sim")
    assert (changed.ok, changed.digest != right) == (False, True)
    assert right[:12] in changed.message
    path.unlink()
    (missing,) = await verify(system, "sim")
    assert (missing.ok, missing.digest) == (False, "")
    assert "sim.gguf is not there" in missing.message
    assert (await shown(system, "sim")).digest == right


@pytest.mark.req("ORCH-1019")
async def test_models_are_listed_by_pages(system: WholeSystem) -> None:
    for number in range(5):
        await register(system, model_pb2.ModelSpec(name=f"m{number}", source=file(system)))
    names, page_token, pages = [], "", 0
    while pages == 0 or page_token:
        request = pb2.ListModelsRequest(page_size=2, page_token=page_token)
        answer = await call(system.catalog.ListModels, request, timeout_s=CALL_S)
        names += [model.spec.name for model in answer.models]
        page_token, pages = answer.next_page_token, pages + 1
    assert (names, pages) == (["m0", "m1", "m2", "m3", "m4", "sim"], 3)


@pytest.mark.parametrize(
    ("spec", "error", "named"),
    [
        (model_pb2.ModelSpec(name="new"), InvalidArgument, "source"),
        (model_pb2.ModelSpec(name="a b", source="file:/m"), InvalidArgument, "name"),
        (model_pb2.ModelSpec(name="new", source="hf:org/repo", aliases=["sim"]), AlreadyExists, "'sim' already means"),
        (
            model_pb2.ModelSpec(name="new", source="file:/m", split_shares=[float("nan")]),
            InvalidArgument,
            "split_shares",
        ),
        (model_pb2.ModelSpec(name="new", source="file:/m", context=10), InvalidArgument, "256"),
        (model_pb2.ModelSpec(name="new", source="file:/m", vram_claim_mib=0), InvalidArgument, "vram_claim_mib"),
    ],
    ids=lambda value: getattr(value, "name", None) or str(value),
)
async def test_a_model_that_can_not_be_is_refused(
    system: WholeSystem, spec: model_pb2.ModelSpec, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        await register(system, spec)
    with pytest.raises(NotFound):
        await shown(system, "new")


async def test_a_change_that_the_disk_does_not_take_is_refused_and_undone(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await shown(system, "sim")
    with monkeypatch.context() as full_disk:
        full_disk.setattr(SqlStore, "save_records", _full)
        full_disk.setattr(SqlStore, "save_task", _full)
        for name in ("new", "sim"):
            with pytest.raises(Unavailable, match="the disk is full") as refused:
                await register(system, model_pb2.ModelSpec(name=name, source=file(system)))
            assert refused.value.reason is Reason.STORE_FAILED
        assert await shown(system, "sim") == before
        with pytest.raises(Unavailable, match="the disk is full"):
            await system.submit(task())
    with pytest.raises(NotFound):
        await shown(system, "new")
    await register(system, model_pb2.ModelSpec(name="new", source=file(system)))
    assert (await shown(system, "new")).spec.source == file(system)


async def test_a_file_that_is_no_model_is_refused_when_it_is_added(system: WholeSystem) -> None:
    whole = gguf(system.folder).read_bytes()
    for name, content, says in (
        ("notes.txt", b"a text, and no model", "it is text"),
        ("page.gguf", b"<!DOCTYPE html><html>", "is an HTML page"),
        ("cut.gguf", whole[: len(whole) // 2], "cut.gguf is not a model that can be loaded"),
        ("headless.gguf", whole[:20], "headless.gguf is not a model that can be loaded"),
    ):
        (system.folder / name).write_bytes(content)
        with pytest.raises(FailedPrecondition, match=says) as refused:
            await register(system, model_pb2.ModelSpec(name="new", source=f"file:{system.folder / name}"))
        assert refused.value.reason is Reason.MODEL_FILE_INVALID
        assert "(on garage)" in refused.value.message
    for source in ("file:/nowhere/x.gguf", "dir:x.gguf", "pkg:no_such_package/x.gguf", f"file:{system.folder}"):
        with pytest.raises(FailedPrecondition) as refused:
            await register(system, model_pb2.ModelSpec(name="new", source=source))
        assert refused.value.reason is Reason.MODEL_FILE_MISSING
    with pytest.raises(NotFound):
        await shown(system, "new")


async def test_a_model_whose_file_has_gone_can_be_changed(system: WholeSystem) -> None:
    source = file(system)
    await register(system, model_pb2.ModelSpec(name="own", source=source))
    (system.folder / "own.gguf").unlink()
    assert (await register(system, model_pb2.ModelSpec(name="own", source=source, slots=2))).spec.slots == 2


async def test_what_can_not_be_known_of_a_file_is_told(tmp_path: Path) -> None:
    async with orchestrator_alone(tmp_path) as system:
        for source, warnings in (
            (
                "file:/models/x.gguf",
                ["no machine could say whether file:/models/x.gguf is a model; its file is looked at"],
            ),
            ("hf:org/repo:Q4_0", ["hf:org/repo:Q4_0 is looked at"]),
        ):
            request = pb2.RegisterModelRequest(model=model_pb2.ModelSpec(name="new", source=source))
            answer = await call(system.catalog.RegisterModel, request, timeout_s=CALL_S)
            assert [one.partition(" when it")[0] for one in answer.warnings] == warnings


async def test_secrets_of_urls_are_not_shown(system: WholeSystem) -> None:
    for source in ("https://me:s3cret@h/x.gguf", "http://me:s3cret@h/x.gguf", "https:me:s3cret@h/x.gguf"):
        with pytest.raises(InvalidArgument) as refused:
            await register(system, model_pb2.ModelSpec(name="new", source=source))
        assert "s3cret" not in refused.value.message
    signed = "https://127.0.0.1/x.gguf?token=s3cret"
    assert (await register(system, model_pb2.ModelSpec(name="signed", source=signed))).spec.source.endswith(
        "?token=[redacted]"
    )
    *_, failed = await system.generate(task(model="signed"))
    assert failed.HasField("error")
    entries = (await call(system.meta.ListAudit, meta_service_pb2.ListAuditRequest(), timeout_s=CALL_S)).entries
    said = (
        str(failed),
        str(await shown(system, "signed")),
        str(await system.state()),
        str(list(entries)),
    )
    assert "token=[redacted]" in said[3]
    assert [text for text in said if "s3cret" in text] == []
    assert b"me:s3cret" not in b"".join(file.read_bytes() for file in system.folder.rglob("*") if file.is_file())


async def _full(*_: object) -> None:
    raise Unavailable(Reason.STORE_FAILED, "the disk is full")


async def register_warned(system: WholeSystem, **fields: object) -> list[str]:
    spec = model_pb2.ModelSpec(**fields)  # type: ignore[arg-type]  # tests name fields
    answer = await call(system.catalog.RegisterModel, pb2.RegisterModelRequest(model=spec), timeout_s=CALL_S)
    return list(answer.warnings)


@pytest.mark.parametrize(
    ("source", "also"),
    [
        ("https://example.com/x.gguf", ""),
        ("https://127.0.0.1/x.gguf", "download_private_hosts"),
        ("https://[::1]:8443/x.gguf", "download_private_hosts"),
        ("https://localhost/x.gguf", "download_private_hosts"),
        ("hf:org/repo:Q4_K_M", ""),
        ("hf:org/repo", "name one, as hf:org/repo:<quantization>"),
    ],
)
async def test_of_a_download_is_said_when_it_is_looked_at_and_what_may_keep_it_away(
    system: WholeSystem, source: str, also: str
) -> None:
    (told,) = await register_warned(system, name="new", source=source)
    assert told.startswith(f"{source} is looked at when it is downloaded")
    assert also in told
    assert also or ";" not in told


async def test_a_context_that_is_cut_is_told_with_what_is_left_of_it(system: WholeSystem) -> None:
    source = file(system)
    assert await register_warned(system, name="own", source=source, context=1024) == []
    (told,) = await register_warned(system, name="own", source=source, context=4_000_000)
    trained = (await shown(system, "own")).context
    assert told == f"context 4000000 is more than model 'own' was trained with: its workers get {trained}"


async def test_a_change_that_takes_workers_out_of_memory_says_so(system: WholeSystem) -> None:
    await system.generate(task())
    told = await register_warned(system, name="sim", source=file(system, "sim.gguf"), slots=2)
    assert told == ["1 worker of model 'sim' leaves memory: it was loaded as it was before"]


async def test_a_missing_file_is_told_with_its_machine_and_the_remedy(system: WholeSystem) -> None:
    await register(system, model_pb2.ModelSpec(name="own", source=file(system)))
    (system.folder / "own.gguf").unlink()
    *_, last = await system.generate(task(model="own"))
    assert last.error.message.endswith(
        "own.gguf is not there; bring it there, or add the model again with the place where it is "
        "(`llorch models add`) (on garage)"
    )
    os.mkfifo(system.folder / "pipe.gguf")
    for source, says in (
        (f"file:{system.folder}/pipe.gguf", "is no file that can be read as often as it is needed"),
        (f"file:{system.folder}", "is a folder, not a model file; name a .gguf file in it (on garage)"),
        ("pkg:no_such_package/x.gguf", "install it there with pip (on garage)"),
        ("dir:x.gguf", "set it in the section [pool_manager] of its settings file (on garage)"),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await register(system, model_pb2.ModelSpec(name="new", source=source))
        assert says in refused.value.message, refused.value.message
