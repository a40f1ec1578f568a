"""An inventory whose driver may hang: asked from a thread of its own, and given up on when it takes too long."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any, TypeVar

from llorch.logs import get_logger
from pool_managerd.devices.device import Device, DeviceState, OwnUse
from pool_managerd.devices.inventory import DeviceInventory, InventoryUnavailable
from pool_managerd.devices.nvml_remedies import LOOK_AT_THE_CARD

Answer = TypeVar("Answer")

_OPEN_WITHIN_S = 60.0  # a host with many GPUs and no persistence mode wakes them one after the other
_ANSWER_WITHIN_S = 2.0
_SAY_SO_AFTER_S = 3.0

_log = get_logger(__name__)


class DriverSilentError(Exception):
    """The driver has not answered in time; what it was asked is still under way."""


class DeadlineInventory:
    """The same devices, all of them LOST while the driver behind `inner` is silent or fails in a way of its own.

    A call into a driver can't be interrupted. The one that hangs is left alone in its thread; until it comes back
    nothing else is asked, and every caller gets the last known figures at once. The thread is a daemon thread: it does
    not keep the process from ending.
    """

    def __init__(
        self,
        inner: DeviceInventory,
        *,
        open_within_s: float = _OPEN_WITHIN_S,
        answer_within_s: float = _ANSWER_WITHIN_S,
    ) -> None:
        self._inner = inner
        self._open_within_s = open_within_s
        self._answer_within_s = answer_within_s
        self._questions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pending: Future[Any] | None = None
        self._last: tuple[Device, ...] = ()
        self._problem = ""
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        self._thread = threading.Thread(target=self._answer, name="device driver", daemon=True)
        self._thread.start()
        patience = threading.Timer(
            _SAY_SO_AFTER_S, _log.warning, ["waiting_for_the_driver"], {"at_most_s": self._open_within_s}
        )
        patience.start()
        try:
            self._ask(self._inner.open, self._open_within_s)
            self._last = tuple(self._ask(lambda: self._inner.sample(OwnUse()), self._open_within_s))
        except DriverSilentError as error:
            self.close()
            raise InventoryUnavailable(
                f"the devices' driver did not answer within {self._open_within_s:g} s", LOOK_AT_THE_CARD
            ) from error
        except BaseException:
            self.close()
            raise
        finally:
            patience.cancel()

    def sample(self, own: OwnUse) -> Sequence[Device]:
        try:
            self._last = tuple(self._ask(lambda: self._inner.sample(own), self._answer_within_s))
        except DriverSilentError:
            self._fails("the driver does not answer")
        except Exception as error:  # noqa: BLE001 - whatever a driver's library raises, this daemon keeps running
            self._fails(f"{type(error).__name__}: {error}")
        else:
            self._works()
        return self._last

    def holds_memory(self, pid: int) -> bool:
        """A driver that does not answer can't be waited for; its devices are LOST, so nothing is placed there."""
        try:
            return self._ask(lambda: self._inner.holds_memory(pid), self._answer_within_s)
        except Exception as error:  # noqa: BLE001 - as above; the next sample reports the devices as lost
            _log.debug("driver_could_not_tell", pid=pid, error=str(error))
            return False

    def close(self) -> None:
        if self._thread is None:
            return
        self._thread = None
        if self._pending is not None:  # another caller's question may be under way
            wait([self._pending], self._answer_within_s)
        try:
            self._ask(self._inner.close, self._answer_within_s)
        except DriverSilentError:
            _log.warning("driver_left_alone", why="it still does not answer")
        self._questions.put(None)

    def _ask(self, question: Callable[[], Answer], within_s: float) -> Answer:
        if self._pending is not None and not self._pending.done():
            raise DriverSilentError
        answer: Future[Answer] = Future()
        self._pending = answer
        self._questions.put(lambda: _settle(answer, question))
        try:
            return answer.result(within_s)
        except TimeoutError:
            if answer.done():  # the question itself ran into a time limit
                raise
            raise DriverSilentError from None

    def _answer(self) -> None:
        while (question := self._questions.get()) is not None:
            question()

    def _fails(self, problem: str) -> None:
        if not self._problem:
            _log.error("devices_lost", devices=[device.device_id for device in self._last], why=problem)
        self._problem = problem
        self._last = tuple(replace(device, state=DeviceState.LOST) for device in self._last)

    def _works(self) -> None:
        if self._problem:
            _log.info("driver_answers_again", devices=[device.device_id for device in self._last])
        self._problem = ""


def _settle(answer: Future[Answer], question: Callable[[], Answer]) -> None:
    try:
        answer.set_result(question())
    except BaseException as error:  # noqa: BLE001 - handed to the caller
        answer.set_exception(error)
