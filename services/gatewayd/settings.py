"""What a gateway is told when it starts."""

from pydantic import Field

from llorch.settings import DaemonSettings, auth_optional_field
from llorch.token_rules import BearerToken


class GatewaySettings(DaemonSettings, section="gateway"):
    """The token belongs into the environment (LLORCH_GATEWAY_TOKEN) or the settings file."""

    bind: str = Field("127.0.0.1:8080", description="Address to listen on, host:port; port 0 takes any free one.")
    orchestrator: str = Field("127.0.0.1:8090", description="host:port of the orchestrator.")
    token: BearerToken | None = Field(
        None,
        repr=False,
        description="Bearer token that every client has to show, on this machine too; the orchestrator has the same. "
        "Without one, clients on this machine alone are let in.",
    )
    auth_optional: bool = auth_optional_field()
    allowed_host: list[str] = Field(
        default_factory=list,
        description="Name under which clients reach this gateway, e.g. gpu-box.lan. Repeatable.",
    )
    allowed_origin: list[str] = Field(
        default_factory=list,
        description="Origin of a web page that may use this gateway, e.g. https://chat.lan. Repeatable.",
    )
    max_body_mib: int = Field(4, ge=1, le=12, description="Largest request body, in MiB.")
    max_requests: int = Field(1024, ge=1, le=65536, description="Requests that are served at once, streams included.")
    max_connections: int = Field(
        2048,
        ge=1,
        le=65536,
        description="Connections that are open at once. Beyond it, the oldest one without a request leaves for a new "
        "one; where all that have been there for long have one, the oldest whose request is not let in yet.",
    )
    max_per_address: int = Field(
        256,
        ge=1,
        le=65536,
        description="Connections, and requests, of one address of another machine at once; an IPv6 network of 64 bits "
        "counts as one. Behind a reverse proxy on another machine, all its clients are one address.",
    )
    body_timeout_s: float = Field(30.0, gt=0, description="Seconds in which a request body has to arrive.")
    call_timeout_s: float = Field(
        120.0, gt=0, description="Seconds that the orchestrator has for an answer that is not a stream."
    )
    reattach_s: float = Field(
        30.0,
        ge=0,
        le=600,
        description="Seconds in which a stream that lost its orchestrator looks for it, before its client is told; 0: "
        "not at all.",
    )
