"""The folder whose models are offered: what counts as one, under which name, and how changes are noticed."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llorch.errors import LlorchError, NotFound, Reason
from pool_managerd.models import folder as folder_module
from pool_managerd.models import shelf as shelf_module
from pool_managerd.models.folder import ModelsFolder, name_of
from pool_managerd.models.shelf import ModelShelf
from support.models import model_bytes


class Watched:
    def __init__(self, root: Path) -> None:
        self.changes = 0
        self.folder = ModelsFolder(root, self._changed)

    async def names(self) -> dict[str, str]:
        """By the name that is offered, what it stands for."""
        await self.folder.look()
        return {model.offered_as: reference for reference, model in self.folder.models.items()}

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


async def test_every_gguf_file_is_a_model_named_by_its_stem(tmp_path: Path, watched: Watched) -> None:
    (tmp_path / "coder.gguf").write_bytes(model_bytes(1000))
    (tmp_path / "org" / "repo").mkdir(parents=True)
    (tmp_path / "org" / "repo" / "My Chat v2.GGUF").write_bytes(model_bytes(1000))
    assert await watched.names() == {"coder": "dir:coder.gguf", "My-Chat-v2": "dir:org/repo/My Chat v2.GGUF"}


async def test_split_files_are_one_model(tmp_path: Path, watched: Watched) -> None:
    for number in range(3):
        part = tmp_path / f"big-0000{number + 1}-of-00003.gguf"
        part.write_bytes(model_bytes(1000, split=(number, 3)))
    assert await watched.names() == {"big": "dir:big-00001-of-00003.gguf"}
    (model,) = watched.folder.models.values()
    assert model.facts.files == 3


async def test_what_is_no_whole_model_is_not_offered(tmp_path: Path, watched: Watched) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "half.gguf").write_bytes(model_bytes(10_000)[:5_000])
    (tmp_path / "lonely-00001-of-00002.gguf").write_bytes(model_bytes(1000, split=(0, 2)))
    (tmp_path / "rest-00002-of-00002.gguf").write_bytes(model_bytes(1000, split=(1, 2)))
    (tmp_path / "mmproj-x.gguf").write_bytes(model_bytes(1000))
    (tmp_path / ".hidden.gguf").write_bytes(model_bytes(1000))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder.gguf").mkdir()
    assert await watched.names() == {}


async def test_a_file_that_is_still_copied_is_offered_once_it_is_whole(tmp_path: Path, watched: Watched) -> None:
    content = model_bytes(10_000)
    (tmp_path / "coder.gguf").write_bytes(content[:9_000])
    assert await watched.names() == {}
    (tmp_path / "coder.gguf").write_bytes(content)
    assert await watched.names() == {"coder": "dir:coder.gguf"}


async def test_only_changes_are_told(tmp_path: Path, watched: Watched) -> None:
    (tmp_path / "coder.gguf").write_bytes(model_bytes(1000))
    await watched.names()
    await watched.names()
    assert watched.changes == 1
    (tmp_path / "coder.gguf").unlink()
    assert await watched.names() == {}
    assert watched.changes == 2


async def test_of_two_files_with_one_name_the_first_is_offered(tmp_path: Path, watched: Watched) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "coder.gguf").write_bytes(model_bytes(1000))
    assert await watched.names() == {"coder": "dir:a/coder.gguf"}
    assert await watched.names() == {"coder": "dir:a/coder.gguf"}
    assert watched.changes == 1


async def test_a_folder_that_is_not_there_offers_nothing(tmp_path: Path) -> None:
    assert await Watched(tmp_path / "not there").names() == {}


async def test_a_reference_can_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.gguf").write_bytes(model_bytes(1000))
    (tmp_path / "models").mkdir()
    shelf = ModelShelf(folder=ModelsFolder(tmp_path / "models", lambda: None))
    for reference, reason in (
        ("dir:../secret.gguf", Reason.INVALID_FIELD),
        ("dir:gone.gguf", Reason.MODEL_FILE_MISSING),
    ):
        with pytest.raises(LlorchError) as refused:
            await shelf.find(reference)
        assert refused.value.reason is reason
    with pytest.raises(NotFound, match="models_dir"):
        await ModelShelf().find("dir:x.gguf")


async def test_a_link_to_a_model_elsewhere_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.gguf").write_bytes(model_bytes(1000))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "coder.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    watched = Watched(tmp_path / "models")
    assert await watched.names() == {"coder": "dir:coder.gguf"}
    assert await ModelShelf(folder=watched.folder).find("dir:coder.gguf")


async def test_a_model_of_the_folder_is_found_and_reported_with_its_name(tmp_path: Path, watched: Watched) -> None:
    (tmp_path / "coder.gguf").write_bytes(model_bytes(1000))
    await watched.folder.look()
    shelf = ModelShelf(folder=watched.folder)
    assert (await shelf.find("dir:coder.gguf")).path == tmp_path / "coder.gguf"
    assert await shelf.path_of("dir:coder.gguf") == tmp_path / "coder.gguf"
    (model,) = shelf.models()
    assert (model.reference, model.offered_as) == ("dir:coder.gguf", "coder")


async def test_of_too_many_files_the_first_are_offered_and_that_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MOST_MODELS", 3)
    for number in range(5):
        (tmp_path / f"m-{number}.gguf").write_bytes(model_bytes(1000))
    watched = Watched(tmp_path)
    with capture_logs() as logs:
        for _ in range(2):
            assert list(await watched.names()) == ["m-0", "m-1", "m-2"]
    assert [line["left_out"] for line in logs if line["event"] == "models_of_folder_left_out"] == [2]


async def test_files_that_were_asked_for_are_reported_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last ones; the others are found all the same."""
    monkeypatch.setattr(shelf_module, "MOST_NOTED", 3)
    references = []
    for number in range(5):
        path = tmp_path / f"m-{number}.gguf"
        path.write_bytes(model_bytes(1000))
        references.append(f"file:{path}")
    known = ModelShelf()
    for reference in (*references, references[2]):
        await known.find(reference)
    assert [model.reference for model in known.models()] == [references[3], references[4], references[2]]
    assert await known.find(references[0])


@pytest.mark.parametrize(
    ("file", "name"),
    [("a b+c.gguf", "a-b-c"), ("---.gguf", "model"), ("ä" * 10 + ".gguf", "model"), ("x" * 300 + ".gguf", "x" * 128)],
)
def test_a_name_has_only_what_names_may_have(file: str, name: str) -> None:
    assert name_of(file) == name
