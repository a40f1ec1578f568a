"""A worker's process that an earlier instance of this pool manager started: its parent is another process now."""

import asyncio
import errno
import fcntl
import os
import struct

from pool_managerd.workers.command import ACCESS_TOKEN_VARIABLE
from pool_managerd.workers.identity import (
    ProcessIdentity,
    age_s,
    exit_status_of_zombie,
    find_by_environment,
    has_variable,
    is_alive,
)
from pool_managerd.workers.journal import WorkerRecord
from pool_managerd.workers.process import ProcessEnd, RunningProcess

# ioctl(2) PIDFD_GET_INFO, Linux 6.13: struct pidfd_info of 64 bytes, whose mask asks and answers.
_PIDFD_GET_INFO = 0xC040FF0B
_INFO_BYTES = 64
_EXIT_ASKED = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_EXIT_STATUS_AT = 60


class AdoptedProcess(RunningProcess):
    def __init__(self, identity: ProcessIdentity, descriptor: int) -> None:
        super().__init__(identity.pid, identity, descriptor)
        self.started = identity

    @property
    def age_s(self) -> float:
        return age_s(self.started)

    def _how_it_ended(self) -> ProcessEnd:
        """The kernel tells its parent. We see it before the parent collects it, or, from Linux 6.15 on, at any time."""
        status = exit_status_of_zombie(self.started)
        if status is None:
            status = _exit_status_of_descriptor(self._descriptor)
        if status is None:
            return ProcessEnd()
        return ProcessEnd.of_return_code(os.waitstatus_to_exitcode(status))


async def find_living(record: WorkerRecord) -> AdoptedProcess | None:
    """The process of this record, if it is alive and proven to be it. No other process is ever signalled."""
    process = record.process or await asyncio.to_thread(_find_by_secret, record)
    return None if process is None else _hold(process, record.access_token)


def _find_by_secret(record: WorkerRecord) -> ProcessIdentity | None:
    return find_by_environment(ACCESS_TOKEN_VARIABLE, record.access_token) if record.access_token else None


def _hold(process: ProcessIdentity, secret: str) -> AdoptedProcess | None:
    """The descriptor stays bound to the process that has the id now: a later process with this id is not mistaken."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_alive(process) and has_variable(process.pid, ACCESS_TOKEN_VARIABLE, secret):
        return AdoptedProcess(process, descriptor)
    os.close(descriptor)
    return None


def _exit_status_of_descriptor(descriptor: int) -> int | None:
    info = bytearray(_INFO_BYTES)
    struct.pack_into("=Q", info, 0, _EXIT_ASKED)
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, info)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):  # an older kernel
            return None
        raise
    (answered,) = struct.unpack_from("=Q", info, 0)
    (status,) = struct.unpack_from("=i", info, _EXIT_STATUS_AT)
    return int(status) if answered & _EXIT_ASKED else None
