"""Which orchestrator may command this node, and how far its commands have been carried out.

Epochs of one cluster are compared; those of two clusters can't be. Which cluster this node belongs to is decided
by the link that the node itself opened, and kept on disk.

A node whose disk is full goes on with what it has in memory, since the other way nothing could be started or stopped
there until a person comes. What that risks: if its pool manager starts anew before the disk has it, the node takes
commands from an orchestrator that was superseded meanwhile, if that one still runs. Its workers do not.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llorch.errors import FailedPrecondition, Reason, invalid_field
from llorch.logs import get_logger
from pool_managerd.durable_file import write_durably

_WHEN_NOT_KEPT = (
    "make room on the disk of data_dir, and let this user write there; it is written with the next command. Before "
    "that, start this pool manager anew only if no superseded orchestrator still runs: it would be obeyed again"
)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CommandHeader:
    cluster_id: str
    control_epoch: int
    command_seq: int


@dataclass(frozen=True, slots=True)
class Authority:
    cluster_id: str = ""
    control_epoch: int = 0


class ControlGuard:
    """Writes to disk when the cluster or the epoch changes, which is when an orchestrator starts, until it could."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._authority = self._kept = _read(path)
        self._is_told = False
        self._highest_done = 0
        self._in_progress: set[int] = set()

    @property
    def authority(self) -> Authority:
        """The orchestrator that this node followed last."""
        return self._authority

    @property
    def applied_command_seq(self) -> int:
        """Every command of this epoch that came in, up to this one, is part of the state."""
        before_the_first_open = min(self._in_progress, default=self._highest_done + 1) - 1
        return min(self._highest_done, before_the_first_open)

    def follow(self, cluster_id: str, control_epoch: int) -> None:
        """Follows the orchestrator that this node registered with. Raises `FailedPrecondition` for a superseded one."""
        if cluster_id == self._authority.cluster_id:
            self._refuse_older(control_epoch)
        self._accept(Authority(cluster_id, control_epoch))

    @contextmanager
    def applying(self, header: CommandHeader) -> Iterator[None]:
        """Encloses the execution of a command. Raises `FailedPrecondition` (STALE_EPOCH) for one without authority."""
        self._check(header)
        epoch = self._authority.control_epoch
        self._in_progress.add(header.command_seq)
        try:
            yield
        finally:
            if epoch == self._authority.control_epoch:
                self._in_progress.discard(header.command_seq)
                self._highest_done = max(self._highest_done, header.command_seq)

    def _check(self, header: CommandHeader) -> None:
        if not header.cluster_id or header.control_epoch < 1 or header.command_seq < 1:
            raise invalid_field("control", "a command names its cluster_id, its control_epoch and its command_seq")
        if self._authority.cluster_id not in ("", header.cluster_id):
            raise self._refusal("this node follows the orchestrator of another cluster")
        self._refuse_older(header.control_epoch)
        self._accept(Authority(header.cluster_id, header.control_epoch))

    def _refuse_older(self, control_epoch: int) -> None:
        if control_epoch < self._authority.control_epoch:
            raise self._refusal(
                f"this orchestrator (epoch {control_epoch}) was superseded (epoch {self._authority.control_epoch})"
            )

    def _refusal(self, why: str) -> FailedPrecondition:
        """Says what this node follows: an orchestrator of that cluster may then know how to go above it."""
        follows = {
            "cluster_id": self._authority.cluster_id,
            "control_epoch": str(self._authority.control_epoch),
        }
        return FailedPrecondition(Reason.STALE_EPOCH, why, metadata=follows)

    def _accept(self, authority: Authority) -> None:
        if authority != self._authority:
            self._authority = authority
            self._highest_done = 0
            self._in_progress = set()
        if authority != self._kept:
            self._keep()

    def _keep(self) -> None:
        try:
            write_durably(self._path, _to_json(self._authority))
        except OSError as error:
            if not self._is_told:
                _log.error("epoch_not_kept", file=str(self._path), why=error.strerror, what_to_do=_WHEN_NOT_KEPT)
            self._is_told = True
            return
        if self._is_told:
            _log.info("epoch_kept", file=str(self._path))
        self._is_told = False
        self._kept = self._authority


def _to_json(authority: Authority) -> dict[str, Any]:
    """These names stay: the next release reads them."""
    return {"cluster_id": authority.cluster_id, "control_epoch": authority.control_epoch}


def _read(path: Path) -> Authority:
    try:
        fields = json.loads(path.read_text())
        return Authority(cluster_id=fields["cluster_id"], control_epoch=fields["control_epoch"])
    except FileNotFoundError:
        return Authority()
    except OSError as error:
        raise FailedPrecondition(Reason.STORE_FAILED, f"{path} can't be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise FailedPrecondition(
            Reason.STORE_FAILED, f"{path} does not hold what this program writes there; remove it and start again"
        ) from error
