import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llorch import network_identity
from llorch.errors import FailedPrecondition
from llorch.network_identity import network_id
from llorch.sdk.connection import find_connection
from llorch.state_dir import state_dir
from llorch.token_file import FoundToken, find_token, kept_token

TOKEN, HERE = "a-secret-of-this-test", "127.0.0.1:8090"
LEFT_OVER = "is left over"
NAME = f"{HERE}@{network_id()}"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "llama-orch" / "tokens"


def shown(found: FoundToken | None) -> str | None:
    return found.token if found is not None else None


@contextmanager
def planted(path: Path, content: str = TOKEN, mode: int = 0o600, *, locked: bool = True) -> Iterator[None]:
    """A file that this module has not written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    with path.open() as file:
        if locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_token_is_found_while_it_is_kept(env: dict[str, str], folder: Path) -> None:
    assert find_token(HERE, env) is None
    with kept_token(HERE, TOKEN, env) as path:
        assert path is not None
        assert path == folder / NAME
        assert shown(find_token(HERE, env)) == TOKEN
        facts = path.stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o600, os.geteuid())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert path.read_text() == f"{TOKEN}\n"  # as `cat` in a command line wants it
    assert find_token(HERE, env) is None
    assert list(folder.iterdir()) == []


def test_it_is_removed_also_where_the_block_fails(env: dict[str, str], folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), kept_token(HERE, TOKEN, env):
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_a_permissive_umask_does_not_open_it(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    opened = os.open

    def watch(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = opened(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watch)
    before = os.umask(0)
    try:
        with kept_token(HERE, TOKEN, env):
            pass
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_systems_on_other_ports_and_addresses_do_not_fetch_each_others(env: dict[str, str]) -> None:
    with (
        kept_token(HERE, "first", env),
        kept_token("127.0.0.1:8091", "second", env),
        kept_token("[::1]:8090", "6", env),
    ):
        assert shown(find_token(HERE, env)) == "first"
        assert shown(find_token("127.0.0.1:8091", env)) == "second"
        assert shown(find_token("[::1]:8090", env)) == "6"
        assert find_token("127.0.0.2:8090", env) is None


def test_localhost_is_this_machine_by_either_family(env: dict[str, str]) -> None:
    with kept_token("localhost:8090", TOKEN, env):
        assert shown(find_token(HERE, env)) == TOKEN
        assert shown(find_token("localhost:8090", env)) == TOKEN
    with kept_token("[::1]:8090", TOKEN, env):
        assert shown(find_token("localhost:8090", env)) == TOKEN


def test_what_is_left_over_for_one_family_does_not_hide_the_other(env: dict[str, str], folder: Path) -> None:
    with planted(folder / NAME, locked=False), kept_token("[::1]:8090", TOKEN, env):
        (folder / NAME).touch(mode=0o600)
        assert shown(find_token("localhost:8090", env)) == TOKEN


def test_a_client_of_a_name_connects_to_the_address_that_the_token_is_kept_for(env: dict[str, str]) -> None:
    assert find_connection("localhost", env=env).address == "localhost:8090"
    with kept_token("[::1]:8090", TOKEN, env):
        assert find_connection("localhost", env=env).address == "[::1]:8090"
        assert find_connection("localhost", "given", env).address == "localhost:8090"
    with kept_token(HERE, TOKEN, env):
        connection = find_connection("localhost", env=env)
        assert (connection.address, connection.token) == (HERE, TOKEN)
    assert (connection.now(env).address, connection.now(env).token) == ("localhost:8090", None)


@pytest.mark.parametrize("facts", ["_BOOT_ID", "_NETWORK"])
def test_the_same_address_in_another_network_or_on_another_machine_is_another_one(
    env: dict[str, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: str
) -> None:
    other = tmp_path / "other"
    other.write_text("another machine")
    with kept_token(HERE, TOKEN, env):
        with monkeypatch.context() as there:
            there.setattr(network_identity, facts, other)
            assert find_token(HERE, env) is None
            with kept_token(HERE, "of-there", env):
                assert shown(find_token(HERE, env)) == "of-there"
                assert len(list(folder.iterdir())) == 2
        assert shown(find_token(HERE, env)) == TOKEN


def test_a_system_that_does_not_tell_its_network_keeps_and_finds_nothing(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept_token(HERE, TOKEN, env):
        monkeypatch.setattr(network_identity, "_BOOT_ID", tmp_path / "missing")
        assert find_token(HERE, env) is None
        with pytest.raises(FileNotFoundError), kept_token(HERE, TOKEN, env):
            pass


def test_a_user_without_a_home_has_nothing_kept_and_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert find_connection(env={}).token is None
    with pytest.raises(FailedPrecondition, match="set HOME, or XDG_STATE_HOME"):
        state_dir({})


def test_a_daemon_of_a_user_without_a_home_says_so_in_a_line() -> None:
    code = (
        "import pathlib, sys\n"
        "def no_home():\n    raise RuntimeError('none')\n"
        "pathlib.Path.home = no_home\n"
        "from pool_managerd.settings import PoolManagerSettings\n"
        "from llorch.settings import load\n"
        "load(PoolManagerSettings, [], env={})\n"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr.count("\n"), "set HOME" in done.stderr) == (2, 1, True), done.stderr


@pytest.mark.parametrize(
    "address",
    [
        "192.168.1.7:8090",
        "brain.lan:8090",
        "0.0.0.0:8090",
        "[::]:8090",
        "127.0.0.1.evil.example:8090",
        "127.1:8090",
        "127.0.0.1%lo:8090",
        "x",
    ],
)
def test_nothing_is_kept_or_shown_for_another_machine(env: dict[str, str], folder: Path, address: str) -> None:
    with kept_token(address, TOKEN, env) as path:
        assert path is None
        assert not folder.exists()
    with planted(folder / f"{address}@{network_id()}"):
        assert find_token(address, env) is None


def test_the_token_of_a_system_that_was_killed_is_shown_to_nothing(env: dict[str, str], folder: Path) -> None:
    with planted(folder / NAME, locked=False):
        found = find_token(HERE, env)
    assert found is not None
    assert (found.token, found.path) == (None, folder / NAME)
    assert LEFT_OVER in found.problem


def test_what_killed_systems_left_is_removed_by_the_next_one(env: dict[str, str], folder: Path) -> None:
    with planted(folder / "127.0.0.1:1", locked=False), planted(folder / "127.0.0.1:2"), kept_token(HERE, TOKEN, env):
        assert sorted(path.name for path in folder.iterdir()) == ["127.0.0.1:2", NAME]


def test_what_a_system_was_writing_when_it_was_killed_is_removed_but_not_what_one_writes_now(
    env: dict[str, str], folder: Path
) -> None:
    with planted(folder / ".127.0.0.1:1", locked=False), planted(folder / ".127.0.0.1:2", locked=False):
        os.utime(folder / ".127.0.0.1:1", (1, 1))
        with kept_token(HERE, TOKEN, env):
            assert sorted(path.name for path in folder.iterdir()) == [".127.0.0.1:2", NAME]


def test_a_new_system_replaces_what_is_left_and_the_old_one_does_not_remove_it(env: dict[str, str]) -> None:
    old = kept_token(HERE, "old", env)
    old.__enter__()
    with kept_token(HERE, "new", env):
        assert shown(find_token(HERE, env)) == "new"
        old.__exit__(None, None, None)
        assert shown(find_token(HERE, env)) == "new"


def test_a_file_that_others_may_read_is_not_trusted(env: dict[str, str], folder: Path) -> None:
    with planted(folder / NAME, mode=0o640):
        found = find_token(HERE, env)
    assert found is not None
    assert (found.token, found.problem) == (None, "may be read by others")


def test_a_folder_that_others_may_write_to_is_not_trusted(env: dict[str, str], folder: Path) -> None:
    with planted(folder / NAME):
        folder.chmod(0o777)
        assert shown(find_token(HERE, env)) is None
        with pytest.raises(PermissionError), kept_token(HERE, TOKEN, env):
            pass


def test_a_file_of_another_user_is_not_trusted(
    env: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with planted(folder / NAME):
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        found = find_token(HERE, env)
    assert found is not None
    assert (found.token, found.problem) == (None, "belongs to another user")


def test_links_are_not_followed(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    with planted(tmp_path / "elsewhere"):
        folder.mkdir(mode=0o700, parents=True)
        (folder / NAME).symlink_to(tmp_path / "elsewhere")
        assert shown(find_token(HERE, env)) is None
        (folder / f".{NAME}").symlink_to(tmp_path / "elsewhere")
        with kept_token(HERE, "new", env):
            assert shown(find_token(HERE, env)) == "new"
        assert (tmp_path / "elsewhere").read_text() == TOKEN
        (folder / NAME).hardlink_to(tmp_path / "elsewhere")
        assert shown(find_token(HERE, env)) is None


def test_a_link_in_place_of_the_folder_is_not_followed(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    with planted(tmp_path / "elsewhere" / NAME):
        folder.parent.mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
        assert find_token(HERE, env) is None
        with pytest.raises(OSError), kept_token(HERE, TOKEN, env):  # noqa: PT011  # ELOOP or ENOTDIR, by the kernel
            pass


def test_a_pipe_does_not_hold_a_reader_up(env: dict[str, str], folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)
    os.mkfifo(folder / NAME, 0o600)
    found = find_token(HERE, env)
    assert found is not None
    assert found.problem == "is no file"


def test_a_client_shows_what_is_kept_only_where_it_was_given_no_token(env: dict[str, str]) -> None:
    with kept_token(HERE, TOKEN, env):
        assert find_connection(env=env).token == TOKEN
        assert find_connection("localhost", env=env).token == TOKEN
        assert find_connection(token="given", env=env).token == "given"
        assert find_connection(env=env | {"LLORCH_API_TOKEN": "of-env"}).token == "of-env"
        assert find_connection("192.168.1.7", env=env).token is None
        assert find_connection(env=env | {"LLORCH_ADDRESS": "brain.lan"}).token is None
        assert TOKEN not in repr(find_connection(env=env))
