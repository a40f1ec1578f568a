"""Whether the orchestrator and the gateway answer where they are looked for, or could be started there."""

from dataclasses import dataclass
from http import HTTPStatus

from llorch.errors import LlorchError, Unauthenticated
from llorch.ports import PortTaken, ensure_free, is_free, resolve_bind, split_address
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.failures import Unreachable
from llorch.system.gateway_check import status_of
from llorch.system.host_check import Finding


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """`answers_here`: one runs on this machine."""

    findings: list[Finding]
    answers_here: bool = False


async def check_orchestrator(client: AsyncClient) -> Orchestrator:
    """And the machines that do not follow it. `client` should be one with little patience."""
    try:
        state = await client.state()
    except Unreachable:
        return Orchestrator([_could_listen("orchestrator", client.address, "LLORCH_ADDRESS or --address")])
    except Unauthenticated as error:
        return Orchestrator([Finding("orchestrator", "failed", error.message, "set LLORCH_API_TOKEN to its token")])
    except LlorchError as error:
        return Orchestrator([Finding("orchestrator", "failed", error.message, "see its log")])
    machines = f"{len(state.nodes)} {'machine' if len(state.nodes) == 1 else 'machines'}"
    answers = Finding("orchestrator", "ok", f"{state.version} answers at {client.address}, with {machines}")
    troubles = [Finding(f"machine {node.node_id}", "failed", node.trouble) for node in state.nodes if node.trouble]
    return Orchestrator([answers, *troubles], _is_here(client.address))


def _is_here(address: str) -> bool:
    """Whether the address is one of this machine: a program can listen there, on any port."""
    try:
        return is_free(resolve_bind(split_address(address)[0]), 0)
    except LlorchError:
        return False


def check_gateway(address: str, token: str | None) -> Finding:
    answer = status_of(address, token)
    if answer == HTTPStatus.OK:
        return Finding("gateway", "ok", f"answers at http://{address}")
    if answer == HTTPStatus.UNAUTHORIZED:
        found = f"{address} asks for {'another' if token else 'a'} token"
        return Finding("gateway", "warning", found, "set LLORCH_API_TOKEN to its token")
    if isinstance(answer, int):
        found = f"{address} answers GET /v2/state with {answer}"
        return Finding("gateway", "warning", found, "if that is another program, give the gateway another --http")
    return _could_listen("gateway", address, "--http")


def _could_listen(check: str, address: str, option: str) -> Finding:
    """Nothing answers at the address; that is fine where a daemon could listen there."""
    try:
        host, port = split_address(address)
        ensure_free(resolve_bind(host), port)
    except PortTaken as error:
        return Finding(
            check, "failed", f"{error.taken}, which does not answer as the {check}", f"end it, or set {option}"
        )
    except LlorchError:
        found = f"none answers at {address}"
        return Finding(check, "failed", found, f"start it there, let the firewall pass it, or correct {option}")
    return Finding(check, "ok", f"none runs at {address} yet; `llorch up` starts one")
