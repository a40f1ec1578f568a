import os
from pathlib import Path

import pytest

from pool_managerd.workers import log_file
from pool_managerd.workers.log_file import forget_oldest_logs, last_lines, read_log
from support.worker_host import eventually


def test_the_last_lines_are_the_last_ones_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("".join(f"line {number}\n" for number in range(50)))
    assert last_lines(path, 3) == ("line 47", "line 48", "line 49")


def test_a_last_line_that_was_cut_off_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("first\nlast words")
    assert last_lines(path, 5) == ("first", "last words")


def test_no_log_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "w.log", 5) == ()


def test_bytes_that_are_no_text_do_not_hide_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_bytes(b"fine\n\xff\xfe\r\nfine too\n")
    assert last_lines(path, 5) == ("fine", "��", "fine too")


async def test_reading_ends_where_nothing_more_comes(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("a\nb\nc")
    assert [lines async for lines in read_log(path, 2, lambda: True)] == [("a", "b"), ("c",)]


async def test_following_tells_every_line_once_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("old\nbefore\nhal")
    said: list[str] = []
    with path.open("a", buffering=1) as worker:
        async for lines in read_log(path, 1, lambda: "end" in said):
            said.extend(lines)
            if said[-1] == "before":
                worker.write("f\nnew\nend\n")
    await eventually(lambda: said == ["before", "half", "new", "end"])


def rotate(path: Path) -> None:
    path.replace(path.with_name(f"{path.name}.1"))
    path.touch()


def test_the_last_lines_reach_back_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("one\ntwo\nthree\n")
    rotate(path)
    path.write_text("four\n")
    assert last_lines(path, 3) == ("two", "three", "four")
    assert last_lines(path, 1) == ("four",)


async def test_reading_reaches_back_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("one\ntwo\n")
    rotate(path)
    path.write_text("three\n")
    assert [lines async for lines in read_log(path, 2, lambda: True)] == [("two", "three")]


async def test_following_goes_on_in_the_new_file_after_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "_FOLLOW_INTERVAL_S", 0.001)
    path = tmp_path / "w.log"
    path.write_text("old\n")
    said: list[str] = []
    async for lines in read_log(path, 1, lambda: "end" in said):
        said.extend(lines)
        if said[-1] == "old":
            with path.open("a") as before:
                rotate(path)
                before.write("last of the old\n")
            path.write_text("new\nend\n")
    assert said == ["old", "last of the old", "new", "end"]


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    kept = log_file._KEEP_LOGS
    for number in range(kept + 3):
        path = tmp_path / f"{number}.log"
        path.touch()
        os.utime(path, (number, number))
        (tmp_path / f"{number}.log.1").touch()
    forget_oldest_logs(tmp_path, living={"1"})
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2 * (kept + 1)
    assert "0.log.1" not in left
    assert {"1.log", "1.log.1"} <= left


def test_logs_of_gone_workers_are_bounded_in_bytes_and_leave_no_second_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "_KEEP_BYTES", 240)
    for number, name in enumerate(("old", "living", "middle", "new")):
        for path in (tmp_path / f"{name}.log", tmp_path / f"{name}.log.1"):
            path.write_bytes(bytes(60))
            os.utime(path, (number, number))
    (tmp_path / "orphan.log.1").write_bytes(bytes(1))
    os.utime(tmp_path / "orphan.log.1", (0, 0))
    forget_oldest_logs(tmp_path, living={"living"})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"living.log", "living.log.1", "middle.log", "middle.log.1", "new.log", "new.log.1"}


def test_the_newest_log_stays_however_long_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "_KEEP_BYTES", 1)
    (tmp_path / "w.log").write_bytes(bytes(100))
    forget_oldest_logs(tmp_path, living=())
    assert (tmp_path / "w.log").exists()


def test_a_log_that_goes_while_they_are_looked_at_stops_nothing(tmp_path: Path) -> None:
    """The ends of two workers at once look at the same folder, and one removes what the other one has listed."""
    (tmp_path / "gone.log").symlink_to(tmp_path / "removed just now")
    (tmp_path / "w.log").touch()
    forget_oldest_logs(tmp_path, living=())
    assert (tmp_path / "w.log").exists()


async def test_a_slow_reader_misses_nothing_of_two_rotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "_FOLLOW_INTERVAL_S", 0.001)
    path = tmp_path / "w.log"
    path.write_text("first\n")
    said: list[str] = []
    async for lines in read_log(path, 1, lambda: "end" in said):
        said.extend(lines)
        if said == ["first"]:
            for text in ("second\nhal", "f\nend\n"):
                rotate(path)
                path.write_text(text)
    assert said == ["first", "second", "half", "end"]
