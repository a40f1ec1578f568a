"""A file that is still coming, over several processes that write it."""

from hashlib import sha256
from pathlib import Path

import pytest

from pool_managerd.models.download.part_file import PartFile, PartState

URL = "https://example.org/x.gguf"


@pytest.fixture
def part(tmp_path: Path) -> PartFile:
    """Ten bytes are certain; what lies behind them was never synced, and is not what was sent."""
    made = PartFile(tmp_path, "key")
    made.open()
    made.restart(PartState(URL, '"v1"', 20))
    made.append([b"01234", b"56789"])
    made.close()
    with made.path.open("ab") as file:
        file.write(bytes(7))
    return PartFile(tmp_path, "key")


def test_only_what_is_certain_is_gone_on_with(part: PartFile) -> None:
    part.open()
    part.resume(URL)
    assert part.length == part.path.stat().st_size == 10
    assert part.state == PartState(URL, '"v1"', 20, 10)
    part.append([b"abc"])
    assert part.sha256 == sha256(b"0123456789abc").hexdigest()
    part.close()
    assert part.path.read_bytes() == b"0123456789abc"


def test_what_is_of_another_url_is_not_gone_on_with(part: PartFile) -> None:
    part.open()
    part.resume("https://example.org/other.gguf")
    assert part.length == part.path.stat().st_size == 0
    part.close()


@pytest.mark.parametrize("record", ["", "{", "[]", '{"url": 1, "more": 2}'])
def test_a_record_that_can_not_be_read_stands_for_nothing(part: PartFile, record: str) -> None:
    part.path.with_suffix(".json").write_text(record)
    part.open()
    part.resume(URL)
    assert part.length == 0
    part.close()


def test_a_record_without_its_file_stands_for_nothing(part: PartFile) -> None:
    part.path.unlink()
    part.open()
    part.resume(URL)
    assert part.length == 0
    part.close()


def test_a_whole_file_gets_its_name_and_can_not_be_changed(part: PartFile, tmp_path: Path) -> None:
    part.open()
    part.resume(URL)
    part.move_to(tmp_path / "blob")
    part.close()
    assert (tmp_path / "blob").read_bytes() == b"0123456789"
    assert (tmp_path / "blob").stat().st_mode & 0o777 == 0o444
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


def test_what_is_dropped_leaves_nothing(part: PartFile, tmp_path: Path) -> None:
    part.open()
    part.resume(URL)
    part.drop()
    part.close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "key.part").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        PartFile(tmp_path, "key").open()
    assert (tmp_path / "victim").read_bytes() == b"mine"
