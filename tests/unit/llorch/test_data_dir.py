import os
from pathlib import Path

import pytest

from llorch.data_dir import held_data_dir
from llorch.errors import FailedPrecondition, InvalidArgument


def test_a_second_daemon_is_told_whose_folder_it_is(tmp_path: Path) -> None:
    with (
        held_data_dir(tmp_path / "data", "orchestrator") as folder,
        pytest.raises(
            FailedPrecondition, match=rf"another orchestrator \(process {os.getpid()}\) .*/data; .*--data-dir"
        ),
        held_data_dir(folder, "orchestrator"),
    ):
        pass
    with held_data_dir(folder, "orchestrator"):
        """Free again, once the first has ended."""


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    with held_data_dir(tmp_path / "a" / "data", "pool manager", "logs") as folder:
        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / "logs").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_can_not_be_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InvalidArgument, match=r"data_dir: .*file/data can't be written to"),
        held_data_dir(tmp_path / "file" / "data", "orchestrator"),
    ):
        pass
