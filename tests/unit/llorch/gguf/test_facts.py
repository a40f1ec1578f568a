"""What follows from a header: layers, windows, states, sizes."""

from pathlib import Path

import pytest

from llorch.errors import FailedPrecondition, NotFound, Reason
from llorch.gguf.facts import FileFacts
from llorch.gguf.model_file import read_model
from support.gguf_writer import Hollow, MetadataValue, TensorData, write_gguf
from support.tiny_models import ARCHITECTURES, CONTEXT_TRAINED, HEAD, KV_HEADS, WINDOW, write_tiny_model

SMALL: dict[str, MetadataValue] = {
    "general.architecture": "llama",
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.block_count": 4,
    "llama.attention.head_count": 2,
}
WEIGHTS: dict[str, TensorData] = {"token_embd.weight": Hollow((100, 64))}


@pytest.fixture
def facts(tmp_path: Path, request: pytest.FixtureRequest) -> FileFacts:
    return read_model(write_tiny_model(tmp_path, request.param))


def small(folder: Path, **changes: MetadataValue) -> FileFacts:
    """`changes` are keys of the architecture, with __ for dots; `architecture` is the architecture itself."""
    architecture = str(changes.pop("architecture", "llama"))
    metadata = {key.replace("llama.", f"{architecture}."): value for key, value in SMALL.items()}
    metadata |= {f"{architecture}.{key.replace('__', '.')}": value for key, value in changes.items()}
    metadata["general.architecture"] = architecture
    return read_model(write_gguf(folder / "small.gguf", metadata, WEIGHTS))


@pytest.mark.parametrize("facts", ["llama"], indirect=True)
def test_a_model_is_described(facts: FileFacts) -> None:
    assert (facts.architecture, facts.name, facts.context_trained) == ("llama", "tiny llama", CONTEXT_TRAINED)
    assert facts.files == 1
    assert list(facts.quantization) == ["f32"]
    assert facts.vocabulary_size > 256
    assert not facts.tied_output
    assert facts.output_bytes == facts.embedding_bytes
    assert facts.weight_bytes < facts.file_bytes < facts.weight_bytes + 100_000
    assert facts.weight_bytes > sum(layer.weight_bytes for layer in facts.layers) > facts.weight_bytes // 2
    for layer in facts.layers:
        assert (layer.key_width, layer.value_width) == (KV_HEADS * HEAD, KV_HEADS * HEAD)
        assert (layer.windowed, layer.state_bytes) == (False, 0)


@pytest.mark.parametrize("facts", ["gemma2"], indirect=True)
def test_windowed_layers_are_known_by_the_architecture(facts: FileFacts) -> None:
    assert [layer.windowed for layer in facts.layers] == [True, False, True, False]
    assert facts.window == WINDOW
    assert facts.tied_output


@pytest.mark.parametrize("facts", ["mamba"], indirect=True)
def test_a_recurrent_model_has_a_state_and_no_cache(facts: FileFacts) -> None:
    assert facts.generates
    for layer in facts.layers:
        assert (layer.key_width, layer.value_width) == (0, 0)
        assert layer.state_bytes == 4 * (3 * 256 + 16 * 256)


@pytest.mark.parametrize("facts", ["jamba"], indirect=True)
def test_a_hybrid_model_has_both_by_layer(facts: FileFacts) -> None:
    assert [layer.state_bytes > 0 for layer in facts.layers] == [True, False, True, False]
    assert [layer.key_width > 0 for layer in facts.layers] == [False, True, False, True]


@pytest.mark.parametrize("facts", ["bert"], indirect=True)
def test_an_encoder_has_no_cache(facts: FileFacts) -> None:
    assert all(layer.key_width == 0 for layer in facts.layers)
    assert not facts.generates


def test_windows_come_from_the_file_where_it_says_them(tmp_path: Path) -> None:
    listed = small(tmp_path, attention__sliding_window=64, attention__sliding_window_pattern=[True, True, False, True])
    assert [layer.windowed for layer in listed.layers] == [True, True, False, True]
    period = small(tmp_path, architecture="gemma3", attention__sliding_window=64, attention__sliding_window_pattern=3)
    assert [layer.windowed for layer in period.layers] == [True, True, False, True]
    dense_first = small(tmp_path, architecture="smallthinker")
    assert [layer.windowed for layer in dense_first.layers] == [False, True, True, True]
    assert dense_first.window == 4096
    unused = small(tmp_path, architecture="phi3", attention__sliding_window=64)
    assert not any(layer.windowed for layer in unused.layers)


def test_latent_attention_keeps_keys_alone(tmp_path: Path) -> None:
    latent = small(
        tmp_path,
        architecture="deepseek2",
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )
    assert {(layer.key_width, layer.value_width) for layer in latent.layers} == {(576, 0)}


def test_layers_that_share_a_cache_have_none(tmp_path: Path) -> None:
    shared = small(tmp_path, architecture="gemma4", attention__shared_kv_layers=2)
    assert [layer.key_width > 0 for layer in shared.layers] == [True, True, False, False]


def test_full_attention_at_intervals(tmp_path: Path) -> None:
    every_second = small(
        tmp_path, architecture="qwen3next", full_attention_interval=2, ssm__conv_kernel=4, ssm__inner_size=128
    )
    assert [layer.state_bytes > 0 for layer in every_second.layers] == [True, False, True, False]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"block_count": 0}, r"has 0 for llama.block_count; it has to be from 1 to 512"),
        ({"block_count": 100_000}, "100000 for llama.block_count"),
        ({"block_count": "many"}, "no whole number for llama.block_count"),
        ({"block_count": True}, "no whole number for llama.block_count"),
        ({"context_length": 0}, "llama.context_length"),
        ({"attention__head_count_kv": [2, 2]}, "has 2 values in llama.attention.head_count_kv, and 4 layers"),
        ({"attention__head_count": 2**31}, "llama.attention.head_count"),
        ({"attention__head_count": 0}, "has 0 for llama.attention.head_count; it has to be from 1"),
        ({"attention__head_count": [0, 0, 0, 0]}, "has 0 for llama.attention.head_count; it has to be from 1"),
        ({"attention__head_count_kv": 0}, "has 0 for llama.attention.head_count_kv; it has to be from 1"),
        ({"attention__key_length": 0}, "has 0 for llama.attention.key_length; it has to be from 1"),
        ({"attention__head_count": 10_000}, r"has 10000 heads \(attention.head_count\) for embeddings of"),
        ({"architecture": "bert", "attention__head_count": 0}, "has 0 for bert.attention.head_count"),
        ({"embedding_length": 0}, "has 0 for llama.embedding_length"),
        ({"attention__head_count": -1}, "-1 for llama.attention.head_count"),
    ],
)
def test_impossible_numbers_are_refused_by_name(tmp_path: Path, changes: dict[str, MetadataValue], found: str) -> None:
    with pytest.raises(FailedPrecondition, match=found) as refused:
        small(tmp_path, **changes)
    assert refused.value.reason is Reason.MODEL_FILE_INVALID
    assert refused.value.message.startswith("small.gguf is not a model that can be loaded: it ")
    assert str(tmp_path) not in refused.value.message


def test_a_file_without_an_architecture_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {"a": 1}, {})
    with pytest.raises(FailedPrecondition, match="does not name its architecture"):
        read_model(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.gguf does not exist"):
        read_model(tmp_path / "gone.gguf")


def split(folder: Path, number: int, count: int, name: str = "") -> Path:
    metadata: dict[str, MetadataValue] = {"split.no": number, "split.count": count}
    tensors: dict[str, TensorData] = {f"blk.{number}.attn_q.weight": Hollow((64, 64))}
    path = folder / (name or f"m-{number + 1:05}-of-{count:05}.gguf")
    return write_gguf(path, metadata | (SMALL if number == 0 else {}), tensors | (WEIGHTS if number == 0 else {}))


def test_a_split_model_is_one_model(tmp_path: Path) -> None:
    first, *others = (split(tmp_path, number, 3) for number in range(3))
    facts = read_model(first)
    assert facts.files == 3
    assert facts.file_bytes == sum(path.stat().st_size for path in (first, *others))
    assert [layer.weight_bytes for layer in facts.layers] == [2304, 2304, 2304, 0]


def test_a_split_model_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    first, second = split(tmp_path, 0, 2), split(tmp_path, 1, 2)
    with pytest.raises(FailedPrecondition, match="number 2 of the 2 files of its model; give the first"):
        read_model(second)
    split(tmp_path, 0, 2, name=second.name)
    with pytest.raises(FailedPrecondition, match=f"{second.name}.* is not number 2"):
        read_model(first)
    second.unlink()
    with pytest.raises(NotFound, match=f"{second.name} does not exist"):
        read_model(first)
    with pytest.raises(FailedPrecondition, match=r"has to be called NAME-00001-of-00002\.gguf"):
        read_model(first.rename(tmp_path / "renamed.gguf"))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_tiny_model_is_read(tmp_path: Path, architecture: str) -> None:
    assert read_model(write_tiny_model(tmp_path, architecture)).architecture == architecture
