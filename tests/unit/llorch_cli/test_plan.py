from dataclasses import replace
from pathlib import Path

from llorch.system import plan
from llorch.system.options import ANY_PORT, SystemOptions
from llorch.system.restarts import MOST, WITHIN_S, RestartLimit

OPTIONS = SystemOptions(
    data_dir=Path("/data"),
    simulate_gpu=("RTX 3090:24GiB", "RTX 3060:12GiB"),
    sim="{}",
    grpc=ANY_PORT,
    config=Path("/etc/l.toml"),
    token="a-secret-of-16-letters",
)


def test_what_is_not_said_is_left_to_the_daemons() -> None:
    options = SystemOptions(data_dir=Path("/data"))

    assert plan.orchestrator(options).arguments == ("--data-dir", "/data/orchestratord")
    assert plan.gateway(options, "127.0.0.1:1").arguments == ("--orchestrator", "127.0.0.1:1")
    assert "--allow-cpu" not in plan.pool_manager(options, "127.0.0.1:1", allow_cpu=False).arguments


def test_the_pool_manager_gets_every_imaginary_card() -> None:
    arguments = plan.pool_manager(OPTIONS, "127.0.0.1:1", allow_cpu=True).arguments

    assert [arguments[at + 1] for at, name in enumerate(arguments) if name == "--simulate-gpu"] == [
        "RTX 3090:24GiB",
        "RTX 3060:12GiB",
    ]
    assert "--allow-cpu" in arguments


def test_every_daemon_reads_the_same_settings_file() -> None:
    for daemon in (
        plan.orchestrator(OPTIONS),
        plan.pool_manager(OPTIONS, "127.0.0.1:1", allow_cpu=False),
        plan.gateway(OPTIONS, "127.0.0.1:1"),
    ):
        assert daemon.arguments[-2:] == ("--config", "/etc/l.toml")


def test_the_variable_that_tells_all_daemons_alike_is_handed_on() -> None:
    assert plan.environment(plan.gateway(OPTIONS, "h:1"), OPTIONS, {"AUTH_OPTIONAL": "true"})["AUTH_OPTIONAL"] == "true"


def test_the_token_goes_through_the_environment_and_never_through_the_command_line() -> None:
    gateway = plan.gateway(OPTIONS, "127.0.0.1:1")

    assert OPTIONS.token not in gateway.command
    assert plan.environment(gateway, OPTIONS, {})["LLORCH_GATEWAY_TOKEN"] == OPTIONS.token
    assert "a-secret" not in repr(OPTIONS)


def test_the_environment_is_passed_on_by_name() -> None:
    inherited = {"PATH": "/bin", "LLORCH_WORKER_THREADS": "2", "LC_ALL": "C", "http_proxy": "x", "SECRET_KEY": "x"}

    passed = plan.environment(plan.orchestrator(OPTIONS), OPTIONS, inherited)
    assert passed.keys() & inherited.keys() == {"PATH", "LLORCH_WORKER_THREADS", "LC_ALL"}


def test_what_a_daemon_says_about_its_settings_is_told_in_those_of_the_system() -> None:
    gateway = plan.gateway(OPTIONS, "127.0.0.1:1")

    said = gateway.in_words_of_the_system("LLORCH_GATEWAY_TOKEN: too short; use --bind 127.0.0.1:2")
    assert said == "--token: too short; use --http 127.0.0.1:2"
    pool_manager = plan.pool_manager(OPTIONS, "127.0.0.1:1", allow_cpu=False)
    assert pool_manager.in_words_of_the_system("on the CPU with --allow-cpu") == "on the CPU with --cpu"


def test_workers_end_with_the_system_and_take_any_port_where_the_pool_manager_does() -> None:
    fixed = plan.pool_manager(OPTIONS, "127.0.0.1:1", allow_cpu=False)
    assert "--stop-workers-on-exit" in fixed.arguments
    assert "--worker-ports" not in fixed.arguments
    anywhere = plan.pool_manager(replace(OPTIONS, pool_manager=ANY_PORT), "127.0.0.1:1", allow_cpu=False)
    assert anywhere.arguments[anywhere.arguments.index("--worker-ports") + 1] == "any"


def test_a_daemon_that_is_started_again_listens_where_it_listened() -> None:
    anywhere = plan.gateway(replace(OPTIONS, http=ANY_PORT), "127.0.0.1:1").bound_to("127.0.0.1:4711")
    assert anywhere.arguments[anywhere.arguments.index("--bind") + 1] == "127.0.0.1:4711"
    assert anywhere.arguments[-2:] == ("--config", "/etc/l.toml")
    by_its_settings = plan.gateway(OPTIONS, "127.0.0.1:1")
    assert by_its_settings.bound_to("127.0.0.1:4711") == by_its_settings


def test_a_daemon_is_started_again_a_few_times_a_minute_and_no_more() -> None:
    limit = RestartLimit()
    assert [limit.allows(float(second)) for second in range(MOST + 2)] == [True] * MOST + [False] * 2
    assert limit.allows(WITHIN_S)
    assert not limit.allows(WITHIN_S + 0.5)


def test_a_refusal_of_the_token_names_where_its_owner_gave_it() -> None:
    message = "LLORCH_ORCHESTRATOR_TOKEN: is empty"

    def told(options: SystemOptions) -> str:
        return plan.orchestrator(options).in_words_of_the_system(message)

    assert told(OPTIONS) == "--token: is empty"
    assert told(replace(OPTIONS, token="", token_from="LLORCH_API_TOKEN")) == "LLORCH_API_TOKEN: is empty"
    assert told(replace(OPTIONS, token=None)) == message
