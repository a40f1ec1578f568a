"""Records that an earlier release wrote are read."""

from llorch.gguf.facts import ModelFacts
from llorch.gguf.layers import Layer
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.store.codec import dump, load, upgrade

SOURCE_OF_0_1 = (
    '{"source":"file:/m.gguf","size_mib":4096,"facts":{"architecture":"llama","context_trained":8192,"layers":'
    '[{"heads":32,"kv_heads":0,"key_width":1024,"value_width":1024,"windowed":false,"state_bytes":0,'
    '"weight_bytes":1000}],"window":0,"vocabulary_size":32000,"activation_width":512,"weight_bytes":2000,'
    '"embedding_bytes":100,"output_bytes":100,"tied_output":true},"digest":""}'
)
MODEL_OF_0_1 = (
    '{"name":"coder","state":"ACTIVE","spec":{"name":"coder","source":"file:/m.gguf","aliases":[],"context":null,'
    '"slots":null,"cache_type":"q8_0","split":"layer","split_shares":[],"idle_unload_s":null,"vram_claim_mib":null},'
    '"provenance":"a call","at_ms":1}'
)


def test_facts_of_a_file() -> None:
    layer = Layer(heads=32, key_width=1024, value_width=1024, windowed=False, state_bytes=0, weight_bytes=1000)
    facts = ModelFacts("llama", 8192, (layer,), 0, 32_000, 512, 2000, 100, 100, tied_output=True)
    present = upgrade(SourceFacts, SOURCE_OF_0_1, 0)
    assert load(SourceFacts, present) == SourceFacts("file:/m.gguf", 4096, facts)


def test_models_that_calls_have_described() -> None:
    present = upgrade(ModelRecord, MODEL_OF_0_1, 0)
    record = load(ModelRecord, present)
    assert (record.spec.cache_type, record.spec.split) == ("q8_0", "layer")
    assert record.spec.engine == ""
    assert dump(ModelRecord, record) == present
