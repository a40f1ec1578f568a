"""The token of a daemon on this machine, in a file by which programs of the same user find it: one per address of
loopback and network, since 127.0.0.1 in a container, or on another machine with the same home, is another one's.

The process that keeps a token holds its file locked. The lock goes with the process, however it ends: a file that is
not locked is left over, and its token is shown to nothing that may listen at the address by now.
"""

import fcntl
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from llorch.errors import InvalidArgument, LlorchError
from llorch.half_written import is_left
from llorch.network_identity import network_id
from llorch.ports import is_loopback_host, join_address, split_address
from llorch.state_dir import state_dir

_LOCALHOST = ("127.0.0.1", "::1")
_LONGEST = 4096
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: what is called like a token may be a pipe.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FoundToken:
    """`address` is the one that it is kept for, and may be shown to. `problem` says of a file without a token to show
    why that is.
    """

    path: Path
    address: str
    token: str | None = field(default=None, repr=False)
    problem: str = ""


@contextmanager
def kept_token(address: str, token: str, env: Mapping[str, str] | None = None) -> Iterator[Path | None]:
    """Keeps it while the block runs, and yields its file: readable by its owner alone from its first moment, and there
    as a whole or not at all. None where the address is not one of loopback. Raises OSError.
    """
    addresses = _addresses(address)
    if not addresses:
        yield None
        return
    name = _name(addresses[0])
    folder_path = _folder(env)
    folder_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened_folder(folder_path) as folder:
        _sweep(folder)
        file = _write(folder, name, token)
        try:
            yield folder_path / name
        finally:
            _unlink_same(folder, name, file)
            os.close(file)


def find_token(address: str, env: Mapping[str, str] | None = None) -> FoundToken | None:
    """What is kept for an address of this machine; None where that is nothing, and for all other addresses."""
    found = []
    # A user without a home, or a system without these files of the kernel, keeps nothing.
    with suppress(OSError, LlorchError):
        for kept_for in _addresses(address):
            with suppress(FileNotFoundError), _opened_folder(_folder(env)) as folder:
                found.append(_read(folder, kept_for, _folder(env) / _name(kept_for)))
    return next((one for one in found if one.token is not None), found[0] if found else None)


def _folder(env: Mapping[str, str] | None) -> Path:
    return state_dir(env) / "tokens"


def _addresses(address: str) -> list[str]:
    """Those for which the token may be kept, none for one that is not of loopback."""
    try:
        host, port = split_address(address)
        hosts = _LOCALHOST if host == "localhost" else (host,)
        return [join_address(str(ipaddress.ip_address(host)), port) for host in hosts if is_loopback_host(host)]
    except (InvalidArgument, ValueError):
        return []


def _name(address: str) -> str:
    return f"{address}@{network_id()}"


@contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    folder = os.open(path, _FOLDER_FLAGS)
    try:
        yield folder
    finally:
        os.close(folder)


def _read(folder: int, address: str, path: Path) -> FoundToken:
    """Raises FileNotFoundError."""
    try:
        file = os.open(path.name, _READ_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        return FoundToken(path, address, problem=f"can't be read: {error.strerror}")
    try:
        problem = _problem(os.fstat(folder)) or _problem(os.fstat(file))
        if not problem and not _is_locked(file):
            problem = "is left over from an `llorch up` that has ended"
        if problem:
            return FoundToken(path, address, problem=problem)
        return FoundToken(path, address, os.read(file, _LONGEST + 1).decode("ascii", "replace").strip())
    finally:
        os.close(file)


def _problem(facts: os.stat_result) -> str:
    """What keeps a file, or the folder that it is in, from being trusted."""
    is_file = stat.S_ISREG(facts.st_mode)
    if facts.st_uid != os.geteuid():
        return "belongs to another user"
    if not is_file and not stat.S_ISDIR(facts.st_mode):
        return "is no file"
    if is_file and (facts.st_mode & 0o077 or facts.st_nlink != 1):
        return "may be read by others"
    if facts.st_mode & 0o022:
        return "is in a folder that others may write to"
    return ""


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _write(folder: int, name: str, token: str) -> int:
    """The open and locked file; it has its name only once it is whole."""
    if problem := _problem(os.fstat(folder)):
        raise PermissionError(0, f"the folder of tokens {problem}")
    new = f".{name}"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    file = os.open(new, _WRITE_FLAGS, 0o600, dir_fd=folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(file, f"{token}\n".encode())
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.close(file)
        raise
    return file


def _sweep(folder: int) -> None:
    """Removes what processes that were killed have left."""
    for name in os.listdir(folder):
        with suppress(OSError):
            file = os.open(name, _READ_FLAGS, dir_fd=folder)
            try:
                # Under a name that begins with a dot it is being written, and may not be locked yet.
                is_over = not name.startswith(".") or is_left(os.fstat(file))
                if is_over and not _is_locked(file):
                    _unlink_same(folder, name, file)
            finally:
                os.close(file)


def _unlink_same(folder: int, name: str, file: int) -> None:
    """Only if the name still stands for the file: another process may keep a token under it by now."""
    with suppress(OSError):
        if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(file)):
            os.unlink(name, dir_fd=folder)
