"""Starts the daemons in order, watches them, and ends all of them together."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from llama_orch.v2 import fleet_service_pb2, node_pb2
from llorch.errors import FailedPrecondition, Reason, Unavailable
from llorch.exception_groups import root_of
from llorch.ports import join_address, split_address
from llorch.run_daemon import EXIT_NO_DEVICE
from llorch.sdk.async_client import AsyncClient
from llorch.settings import configured
from llorch.system import plan
from llorch.system.daemon import Daemon, DaemonFailed
from llorch.system.family import Family
from llorch.system.gateway_check import wait_answering
from llorch.system.options import CpuUse, SystemOptions
from llorch.system.restarts import RestartLimit
from llorch.token_file import kept_token

Report = Callable[[str, str], None]
"""Called with the name of a daemon and what it does, per step: `("gatewayd", "answers at …")`."""

_SERVING_WITHIN_S = 30.0
_REGISTERED_WITHIN_S = 15.0
_POLL_S = 0.05
_COLLECT_EVERY_S = 1.0
# Together below the five seconds in which everything has to be gone.
_DRAIN_S = 3.0
_LEFTOVERS_S = 0.5


class LocalSystem:
    """`start`, then use it, then always `stop`, also when `start` failed or was cancelled.

    `grpc_address` and `http_url` are known once it has started, and with them the tokens that are asked for there, and
    the files in which programs of this user find them.
    """

    def __init__(self, options: SystemOptions, report: Report) -> None:
        self._options = options
        self._report = report
        self._daemons: list[Daemon] = []
        self._addresses: dict[str, str] = {}
        self._family = Family()
        self._kept = ExitStack()
        self.grpc_address = ""
        self.grpc_token: str | None = None
        self.grpc_token_file: Path | None = None
        self.http_url = ""
        self.http_token: str | None = None
        self.http_token_file: Path | None = None

    async def start(self) -> fleet_service_pb2.State:
        """Returns when every daemon answers and the node with its devices is registered. Raises DaemonFailed."""
        orchestrator = plan.orchestrator(self._options)
        self.grpc_address = reachable(await self._serve(orchestrator))
        self.grpc_token = self._token(orchestrator.section)
        self._refuse_another_token_of_the_pool_manager()
        self.grpc_token_file = self._keep(self.grpc_address, self.grpc_token)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._start_pool_manager())
                both.create_task(self._start_gateway())
        except BaseExceptionGroup as error:
            raise root_of(error) from error
        return await self._wait_registered()

    async def wait_failed(self) -> DaemonFailed:
        """The first daemon that ends by itself and is not started again.

        A pool manager is: its workers live on without it, and the next one takes them back while they answer.
        """
        limit = RestartLimit()
        while True:
            ended, failure = await self._wait_ended()
            self._daemons.remove(ended)
            if ended.name != plan.POOL_MANAGER or not limit.allows(asyncio.get_running_loop().time()):
                return failure
            self._report(
                ended.name, f"{failure.message.removeprefix(f'{ended.name} ')}; a new one takes its models over"
            )
            try:
                await self._serve(ended.plan.bound_to(self._addresses[ended.name]))
            except DaemonFailed as error:
                return error

    async def _wait_ended(self) -> tuple[Daemon, DaemonFailed]:
        waiting = {asyncio.create_task(daemon.wait_ended(), name=daemon.name): daemon for daemon in self._daemons}
        try:
            while True:
                done, _ = await asyncio.wait(waiting, timeout=_COLLECT_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    first = done.pop()
                    return waiting[first], first.result()
                self._family.collect_orphans({daemon.pid for daemon in self._daemons})
        finally:
            for task in waiting:
                task.cancel()

    async def stop(self) -> None:
        """Ends the daemons, their workers, and whatever came of them, within five seconds."""
        self._kept.close()
        for daemon in self._daemons:
            daemon.terminate()
        ended = asyncio.gather(*(daemon.wait_ended() for daemon in self._daemons))
        try:
            await asyncio.wait_for(asyncio.shield(ended), _DRAIN_S)
        except TimeoutError:
            for daemon in self._daemons:
                daemon.kill()
            await ended
        await asyncio.to_thread(self._family.end, _LEFTOVERS_S)

    def kill(self) -> None:
        """Ends everything at once. Needs no event loop."""
        self._kept.close()
        self._family.kill()

    async def _serve(self, daemon_plan: plan.DaemonPlan) -> str:
        environment = plan.environment(daemon_plan, self._options, os.environ)
        daemon = await Daemon.spawn(daemon_plan, environment, self._options.data_dir)
        self._daemons.append(daemon)
        self._report(daemon.name, f"starts (pid {daemon.pid})")
        address = self._addresses[daemon.name] = await daemon.wait_serving(_SERVING_WITHIN_S)
        self._report(daemon.name, f"answers at {address}")
        return address

    async def _start_pool_manager(self) -> None:
        allowed = self._options.cpu is CpuUse.ALLOWED
        try:
            await self._serve(plan.pool_manager(self._options, self.grpc_address, allow_cpu=allowed))
        except DaemonFailed as error:
            if self._options.cpu is not CpuUse.IF_NO_GPU or error.exit_code != EXIT_NO_DEVICE:
                raise
            self._daemons = [daemon for daemon in self._daemons if daemon.name != error.name]
            self._report(error.name, "no GPU was found, so models run on the CPU")
            await self._serve(plan.pool_manager(self._options, self.grpc_address, allow_cpu=True))

    async def _start_gateway(self) -> None:
        gateway = plan.gateway(self._options, self.grpc_address)
        address = reachable(await self._serve(gateway))
        # A gateway without one hands on what its clients show.
        self.http_token = self._token(gateway.section) or self.grpc_token
        await wait_answering(address, _SERVING_WITHIN_S, self.http_token)
        self.http_token_file = self._keep(address, self.http_token)
        self.http_url = f"http://{address}"

    def _token(self, section: str) -> str | None:
        """The one that the daemon of that section asks for."""
        return self._options.token or configured(section, "token", self._options.config, os.environ)

    def _refuse_another_token_of_the_pool_manager(self) -> None:
        """It would be waited for in vain: it joins only with the orchestrator's."""
        shown = self._token(plan.POOL_MANAGER_SECTION)
        if self.grpc_token is not None and shown != self.grpc_token:
            raise FailedPrecondition(
                Reason.TOKEN_INVALID if shown else Reason.TOKEN_MISSING,
                f"the orchestrator asks for its token, and the pool manager has {'another' if shown else 'none'}; give "
                f"both the same one, `token` in [orchestrator] and [{plan.POOL_MANAGER_SECTION}] of the settings file, "
                "or all daemons one in LLORCH_API_TOKEN",
            )

    def _keep(self, address: str, token: str | None) -> Path | None:
        if token is None:
            return None
        try:
            return self._kept.enter_context(kept_token(address, token))
        except OSError as error:
            self._report(
                "", f"the token can't be kept for programs of this user: {error.strerror}; set LLORCH_API_TOKEN"
            )
            return None

    async def _wait_registered(self) -> fleet_service_pb2.State:
        async with AsyncClient(self.grpc_address, self.grpc_token) as client:
            deadline = asyncio.get_running_loop().time() + _REGISTERED_WITHIN_S
            while True:
                state = await client.state()
                ready = [node.node_id for node in state.nodes if node.state == node_pb2.NODE_STATE_READY]
                if ready and state.devices:
                    self._report("orchestratord", f"has the machine {ready[0]} with its devices")
                    return state
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(
                        Reason.NO_DEVICE,
                        f"the pool manager did not register with its devices within {_REGISTERED_WITHIN_S:g} s; its "
                        f"log is {self._options.data_dir / 'logs' / 'pool-managerd.log'}",
                    )
                await asyncio.sleep(_POLL_S)


def reachable(address: str) -> str:
    """Where this machine reaches a listener: one on all addresses answers on loopback."""
    host, port = split_address(address)
    return join_address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104  # compared only
