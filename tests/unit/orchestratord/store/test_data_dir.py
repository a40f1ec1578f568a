from pathlib import Path

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument
from orchestratord.store.data_dir import DataDir


def test_a_second_orchestrator_is_told_whose_folder_it_is(tmp_path: Path) -> None:
    with DataDir(tmp_path / "data") as folder, pytest.raises(FailedPrecondition, match="--data-dir"), DataDir(folder):
        pass
    with DataDir(folder):
        """Free again, once the first has ended."""


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    with DataDir(tmp_path / "a" / "data") as folder:
        assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_can_not_be_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data_dir = DataDir(tmp_path / "file" / "data")
    with pytest.raises(InvalidArgument, match=r"data_dir: .*file/data can't be written to"), data_dir:
        pass
