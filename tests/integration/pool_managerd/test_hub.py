"""Models of the Hugging Face Hub, from a local server that speaks its protocol to the Hub's own library."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import InvalidArgument, LlorchError, NotFound, PermissionDenied, Reason, Unavailable
from llorch.model_reference import HubReference, parse_reference
from pool_managerd.models.hub_files import HubFile, choose, quantization_of
from support.download_server import DownloadServer, Internet, download_server
from support.hub import NAMES, FakeHub
from support.models import Downloads, model_bytes

GIB = 2**30


@pytest.fixture
async def server() -> AsyncIterator[DownloadServer]:
    async with download_server() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A token of the user that runs the tests stays out of them."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
async def downloads(tmp_path: Path, server: DownloadServer) -> AsyncIterator[Downloads]:
    async with TaskSupervisor("test") as tasks:
        yield await Downloads(tmp_path / "models", Internet(server, NAMES).network(), tasks).open()


async def refusal(downloads: Downloads, reference: str) -> LlorchError:
    with pytest.raises(LlorchError) as refused:
        await downloads.shelf.stage(reference).wait()
    return refused.value


@pytest.mark.req("POOL-2006")
async def test_a_quantization_comes_with_the_digest_that_the_hub_says(
    server: DownloadServer, downloads: Downloads
) -> None:
    wanted = model_bytes(seed=4)
    FakeHub(server, {"repo-Q4_K_M.gguf": wanted, "repo-Q8_0.gguf": model_bytes(seed=8), "README.md": b"#"})
    model = await downloads.shelf.stage("hf:org/repo:q4_k_m").wait()
    assert model.path.read_bytes() == wanted
    assert model.path.name == "repo-Q4_K_M.gguf"


async def test_a_file_of_a_revision_is_found_by_its_path(server: DownloadServer, downloads: Downloads) -> None:
    FakeHub(server, {"sub/a.gguf": model_bytes(seed=1), "b.gguf": model_bytes(seed=2)})
    model = await downloads.shelf.stage("hf:org/repo/sub/a.gguf@v1").wait()
    assert model.path.name == "a.gguf"
    assert any(request.path.startswith("/api/models/org/repo/revision/v1?") for request in server.requests)


async def test_a_split_model_of_the_hub_comes_as_one(server: DownloadServer, downloads: Downloads) -> None:
    files = {f"Q8_0/big-Q8_0-0000{n + 1}-of-00002.gguf": model_bytes(seed=n, split=(n, 2)) for n in range(2)}
    FakeHub(server, {**files, "big-Q4_0.gguf": model_bytes()})
    assert (await downloads.shelf.stage("hf:org/repo:Q8_0").wait()).facts.files == 2


async def test_the_token_goes_to_the_hub_and_nowhere_else(
    server: DownloadServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-owner")
    hub = FakeHub(server, {"x.gguf": model_bytes()}, token="of-the-owner")
    await downloads.shelf.stage("hf:org/repo").wait()
    assert hub.cdn_authorizations == [None]


async def test_several_quantizations_without_a_choice_are_listed(server: DownloadServer, downloads: Downloads) -> None:
    FakeHub(server, {"repo-Q4_K_M.gguf": model_bytes(), "repo-Q8_0.gguf": model_bytes(), "mmproj-F16.gguf": b""})
    refused = await refusal(downloads, "hf:org/repo")
    assert isinstance(refused, InvalidArgument)
    assert refused.message.splitlines()[1:] == [
        "  hf:org/repo:Q4_K_M   0.0 GiB  fits RTX 3090",
        "  hf:org/repo:Q8_0     0.0 GiB  fits RTX 3090",
    ]
    assert downloads.files == []


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((404, "RepoNotFound", "no"), NotFound, "HF_TOKEN"),
        ((401, "RepoNotFound", "no"), NotFound, "private"),
        ((403, "GatedRepo", "no"), PermissionDenied, "accept them at https://huggingface.co/org/repo"),
        ((404, "RevisionNotFound", "no"), NotFound, "no revision 'v1'"),
        ((500, "", "no"), Unavailable, "HTTP 500"),
        ((429, "", "no"), Unavailable, "HTTP 429"),
    ],
)
async def test_what_the_hub_refuses_is_told_in_words(
    server: DownloadServer, downloads: Downloads, answer: tuple[int, str, str], kind: type, words: str
) -> None:
    FakeHub(server, {"x.gguf": model_bytes()}, refusal=answer)
    refused = await refusal(downloads, "hf:org/repo@v1")
    assert isinstance(refused, kind)
    assert words in refused.message


@pytest.mark.parametrize("says", [{"siblings": 7}, {"siblings": [{"size": "many"}]}, {"siblings": None}])
async def test_an_answer_that_makes_no_sense_does_no_harm(
    server: DownloadServer, downloads: Downloads, says: Mapping[str, object]
) -> None:
    FakeHub(server, {"x.gguf": model_bytes()}, says=dict(says))
    assert (await refusal(downloads, "hf:org/repo")).reason in (
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.MODEL_FILE_MISSING,
    )


def hub_reference(text: str) -> HubReference:
    parsed = parse_reference(text)
    assert isinstance(parsed, HubReference)
    return parsed


def chosen(text: str, *files: HubFile) -> list[str]:
    return [file.path for file in choose(hub_reference(text), files, lambda _: "").files]


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("model.q8_0.gguf", "Q8_0"),
        ("x-IQ3_XXS.gguf", "IQ3_XXS"),
        ("x-UD-Q2_K_XL.gguf", "UD-Q2_K_XL"),
        ("x-BF16-00001-of-00002.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Q2_is_here.gguf", ""),
        ("plain.gguf", ""),
    ],
)
def test_a_quantization_is_read_from_the_file_name(name: str, quantization: str) -> None:
    assert quantization_of(name) == quantization


def test_a_quantization_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean Q4_K_M") as refused:
        chosen("hf:a/b:Q4_KM", HubFile("x-Q4_K_M.gguf", 5 * GIB), HubFile("x-Q8_0.gguf", 9 * GIB))
    assert "hf:a/b:Q8_0     9.0 GiB" in refused.value.message


def test_the_same_quantization_of_two_models_is_told_by_files() -> None:
    with pytest.raises(InvalidArgument) as refused:
        chosen("hf:a/b:Q4_0@v1", HubFile("x-Q4_0.gguf", GIB), HubFile("y-Q4_0.gguf"))
    assert "hf:a/b/x-Q4_0.gguf@v1   1.0 GiB" in refused.value.message
    assert "hf:a/b/y-Q4_0.gguf@v1     ? GiB" in refused.value.message


def test_only_whole_models_with_proper_names_are_offered() -> None:
    files = [
        HubFile("x-Q4_0.gguf"),
        HubFile("../../etc/x-Q8_0.gguf"),
        HubFile("/etc/x-Q8_0.gguf"),
        HubFile("a\\..\\x-Q8_0.gguf"),
        HubFile("x-Q5_0-00001-of-00002.gguf"),
        HubFile("x-mmproj-Q8_0.gguf"),
        HubFile("model.safetensors"),
    ]
    assert chosen("hf:a/b", *files) == ["x-Q4_0.gguf"]


def test_a_repository_without_models_says_what_to_look_for() -> None:
    with pytest.raises(NotFound, match="GGUF in its name"):
        chosen("hf:a/b", HubFile("model.safetensors"))


def test_a_long_list_ends() -> None:
    with pytest.raises(InvalidArgument, match="and 20 more"):
        chosen("hf:a/b", *(HubFile(f"x{number}.gguf") for number in range(60)))
