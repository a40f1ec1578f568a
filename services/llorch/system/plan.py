"""Which command each daemon is, and in which environment it runs. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llorch import lifeline
from llorch.system.options import ANY_PORT, SystemOptions

POOL_MANAGER = "pool-managerd"
POOL_MANAGER_SECTION = "pool_manager"

_PASSED_ON = frozenset(
    {
        "AUTH_OPTIONAL",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_PASSED_ON_PREFIXES = ("LC_", "XDG_", "LLORCH_", "PYTHON", "CUDA_", "NVIDIA_", "GGML_", "HF_", "SSL_CERT_")


@dataclass(frozen=True, slots=True)
class DaemonPlan:
    """`bind_option` is what a user of this system says where the daemon has `--bind`; `token_from` is where the token
    comes from that is handed to it, empty for none.
    """

    name: str
    section: str
    arguments: tuple[str, ...]
    bind_option: str
    token_from: str = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.name.replace("-", "_"), *self.arguments]

    @property
    def token_variable(self) -> str:
        return f"LLORCH_{self.section.upper()}_TOKEN"

    def bound_to(self, address: str) -> "DaemonPlan":
        """The same one, listening where it listened when any port would do; else where its settings say."""
        if "--bind" not in self.arguments:
            return self
        at = self.arguments.index("--bind") + 1
        return replace(self, arguments=(*self.arguments[:at], address, *self.arguments[at + 1 :]))

    def in_words_of_the_system(self, message: str) -> str:
        """The daemon's message about its own settings, with the names of the options of `llorch up`."""
        said = message.replace("--bind", self.bind_option).replace("--allow-cpu", "--cpu")
        if not self.token_from and said.startswith(f"{self.token_variable}: "):
            return said  # its owner has set the variable itself
        return said.replace(self.token_variable, self.token_from or "--token")


def orchestrator(options: SystemOptions) -> DaemonPlan:
    arguments = ("--data-dir", str(options.data_dir / "orchestratord"), *_common(options, options.grpc))
    return DaemonPlan("orchestratord", "orchestrator", arguments, "--grpc", _token_from(options))


def pool_manager(options: SystemOptions, orchestrator_address: str, *, allow_cpu: bool) -> DaemonPlan:
    folder = options.data_dir / "pool-managerd"
    arguments = ["--data-dir", str(folder), "--orchestrator", orchestrator_address, "--stop-workers-on-exit"]
    if allow_cpu:
        arguments.append("--allow-cpu")
    for card in options.simulate_gpu:
        arguments += ["--simulate-gpu", card]
    if options.simulated_engine is not None:
        arguments += ["--simulated-engine", options.simulated_engine]
    if options.sim is not None:
        arguments += ["--sim", options.sim]
    if options.pool_manager == ANY_PORT:
        arguments += ["--worker-ports", "any"]
    arguments += _common(options, options.pool_manager)
    return DaemonPlan(POOL_MANAGER, POOL_MANAGER_SECTION, tuple(arguments), "--pool-manager", _token_from(options))


def gateway(options: SystemOptions, orchestrator_address: str) -> DaemonPlan:
    arguments = ("--orchestrator", orchestrator_address, *_common(options, options.http))
    return DaemonPlan("gatewayd", "gateway", arguments, "--http", _token_from(options))


def environment(plan: DaemonPlan, options: SystemOptions, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that a daemon needs. The token goes this way because every user can read a command line."""
    passed = {
        name: value for name, value in inherited.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    passed[lifeline.VARIABLE] = lifeline.STDIN
    if options.token is not None:
        passed[plan.token_variable] = options.token
    return passed


def _token_from(options: SystemOptions) -> str:
    return "" if options.token is None else options.token_from


def _common(options: SystemOptions, bind: str | None) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    if bind is not None:
        found += ("--bind", bind)
    if options.config is not None:
        found += ("--config", str(options.config))
    return found
