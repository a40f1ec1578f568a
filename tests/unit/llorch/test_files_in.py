from pathlib import Path

from llorch.files_in import files_in


def test_files_are_listed_with_their_facts(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(bytes(3))
    (tmp_path / "b.txt").touch()
    assert [(path.name, facts.st_size) for path, facts in files_in(tmp_path, "*.log")] == [("a.log", 3)]


def test_what_is_gone_since_it_was_listed_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "here").touch()
    assert [path.name for path, _ in files_in(tmp_path)] == ["here"]


def test_no_folder_has_no_files(tmp_path: Path) -> None:
    assert list(files_in(tmp_path / "none")) == []
