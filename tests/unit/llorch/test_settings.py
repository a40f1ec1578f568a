import re
from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, ValidationError, model_validator

from llorch.settings import DaemonSettings, SettingsError, configured, load, read


class GatewaySettings(DaemonSettings, section="gateway"):
    bind: str = Field("127.0.0.1:8080", description="Address to listen on, host:port.")
    slots: int = Field(4, ge=1, description="Slots, 1 or more.")
    allow_cpu: bool = Field(False, description="Whether the CPU may be used.")
    device: list[str] = Field([], description="Devices.")
    token: str | None = Field(None, description="Bearer token.")
    heartbeat_s: float = Field(15.0, gt=0, description="Seconds between heartbeats.")


class WorkerSettings(DaemonSettings, section="worker"):
    worker_id: str = Field(description="Id of this worker.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "llama-orch.toml"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """No settings file of this machine is found."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "nothing")}


def test_defaults_hold_when_nothing_is_set(env: dict[str, str]) -> None:
    settings = read(GatewaySettings, [], env)
    assert settings.bind == "127.0.0.1:8080"
    assert settings.log_level == "info"


def test_flag_beats_environment_beats_file_beats_default(file: Path, env: dict[str, str]) -> None:
    file.write_text('[gateway]\nbind = "file:1"\nslots = 2\nheartbeat_s = 3\n')
    env |= {"LLORCH_CONFIG": str(file), "LLORCH_GATEWAY_BIND": "env:1", "LLORCH_GATEWAY_SLOTS": "5"}
    settings = read(GatewaySettings, ["--bind", "flag:1"], env)
    assert (settings.bind, settings.slots, settings.heartbeat_s) == ("flag:1", 5, 3.0)
    assert settings.config == file


def test_the_folder_of_models_may_stand_above_all_sections(file: Path, env: dict[str, str]) -> None:
    class PoolManagerSettings(DaemonSettings, section="pool_manager"):
        models_dir: str = Field("", description="Folder.")

    file.write_text('models_dir = "/models"\n[gateway]\n')
    assert read(PoolManagerSettings, ["--config", str(file)], env).models_dir == "/models"
    assert read(GatewaySettings, ["--config", str(file)], env).slots == 4
    file.write_text("models_dir = 7\n")
    with pytest.raises(SettingsError, match=r"llama-orch.toml: models_dir: input should be"):
        read(PoolManagerSettings, ["--config", str(file)], env)
    file.write_text('models_dir = "/models"\n[pool_manager]\nmodels_dir = "/other"\n')
    assert read(PoolManagerSettings, ["--config", str(file)], env).models_dir == "/other"


def test_flags_are_kebab_case_and_switches_need_no_value(env: dict[str, str]) -> None:
    assert read(GatewaySettings, ["--allow-cpu"], env).allow_cpu
    assert not read(GatewaySettings, ["--no-allow-cpu"], env).allow_cpu


def test_lists_come_comma_separated_or_repeated(env: dict[str, str]) -> None:
    assert read(GatewaySettings, ["--device", "cuda:a,cuda:b"], env).device == ["cuda:a", "cuda:b"]
    assert read(GatewaySettings, ["--device=cuda:a", "--device=cuda:b"], env).device == ["cuda:a", "cuda:b"]


def test_the_level_of_the_logging_section_is_for_all_daemons(file: Path, env: dict[str, str]) -> None:
    file.write_text('[logging]\nlevel = "debug"\n[gateway]\n')
    assert read(GatewaySettings, ["--config", str(file)], env).log_level == "debug"
    file.write_text('[logging]\nlevel = "debug"\n[gateway]\nlog_level = "error"\n')
    assert read(GatewaySettings, ["--config", str(file)], env).log_level == "error"


def test_the_usual_place_is_looked_at(tmp_path: Path) -> None:
    place = tmp_path / "llama-orch"
    place.mkdir()
    (place / "llama-orch.toml").write_text("[gateway]\nslots = 7\n")
    assert read(GatewaySettings, [], {"XDG_CONFIG_HOME": str(tmp_path)}).slots == 7


def test_sections_of_others_are_no_concern(file: Path, env: dict[str, str]) -> None:
    file.write_text('[orchestrator]\nanything = 1\n[models.coder]\nsource = "file:x"\n')
    assert read(GatewaySettings, ["--config", str(file)], env).slots == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[gateway]\nslotz = 3\n", r"llama-orch.toml, section \[gateway\]: unknown key 'slotz'; did you mean slots\?"),
        ("[gatewai]\nslots = 3\n", r"has the section \[gatewai\], which means nothing; did you mean gateway\?"),
        (
            "[gateway]\nslots = 0\n",
            r"llama-orch.toml, section \[gateway\]: slots: .*greater than or equal to 1 \(got 0\)",
        ),
        ("[gateway]\nslots = \n", r"llama-orch.toml is not TOML: .*line 2"),
        ("[gateway]\nconfig = 'x'\n", r"section \[gateway\]: unknown key 'config'"),
        ("[logging]\nlevle = 'x'\n", r"section \[logging\]: unknown key 'levle'; did you mean level\?"),
        ("[logging]\nlevel = 'loud'\n", r"llama-orch.toml, section \[logging\]: level: input should be 'debug'"),
        ("[gateway]\nlog_level = 'loud'\n", r"section \[gateway\]: log_level: input should be 'debug'"),
        ("slots = 3\n", r"has the key 'slots' above all sections, .*, this one in \[gateway\]$"),
        ("level = 'info'\n", r"has the key 'level' above all sections, .*, this one in \[logging\]$"),
        ("queue_capacity = 3\n", r"has the key 'queue_capacity' above all sections, .*stand in its section$"),
        ("[[gatewai]]\nslots = 3\n", r"has the section \[gatewai\], which means nothing; did you mean gateway\?"),
        ("gateway = 3\n", r"gateway has to be a section"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(
    content: str, expected: str, file: Path, env: dict[str, str]
) -> None:
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read(GatewaySettings, ["--config", str(file)], env)
    assert re.search(expected, caught.value.message), caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--slotz", "3"], r"--slotz is no flag of gatewayd; did you mean --slots\?"),
        (["--slots", "many"], r"--slots: input should be a valid integer.*\(got 'many'\)"),
        (["--slots"], r"argument --slots: expected one argument"),
        (["--heartbeat-s", "0"], r"--heartbeat-s: input should be greater than 0"),
        (["--config", "/no/such.toml"], r"the settings file /no/such.toml does not exist"),
        (["--slot", "3"], r"--slot is no flag of gatewayd; did you mean --slots\?"),
        (["stray"], r"stray is no flag of gatewayd"),
    ],
)
def test_a_mistake_in_a_flag_is_named(argv: list[str], expected: str, env: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(GatewaySettings, argv, env)
    assert re.search(expected, caught.value.message), caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LLORCH_GATEWAY_SLOTZ", "3", r"sets LLORCH_GATEWAY_SLOTZ, .*did you mean LLORCH_GATEWAY_SLOTS\?"),
        ("LLORCH_GATEWAY_SLOTS", "no", r"LLORCH_GATEWAY_SLOTS: input should be a valid integer"),
        ("LLORCH_GATEWAY_DEVICE", "a,b", r"device.*are written as JSON"),
    ],
)
def test_a_mistake_in_the_environment_is_named(name: str, value: str, expected: str, env: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(GatewaySettings, [], env | {name: value})
    assert re.search(expected, caught.value.message), caught.value.message


def test_a_setting_without_a_default_is_asked_for(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="--worker-id is not set: Id of this worker"):
        read(WorkerSettings, [], env)
    assert read(WorkerSettings, [], env | {"LLORCH_WORKER_WORKER_ID": "w"}).worker_id == "w"


def test_a_bad_token_is_not_shown(file: Path, env: dict[str, str]) -> None:
    file.write_text("[gateway]\ntoken = 12345\n")
    with pytest.raises(SettingsError) as caught:
        read(GatewaySettings, ["--config", str(file)], env)
    assert "12345" not in caught.value.message


def test_a_rule_over_several_settings_does_not_show_them_all(env: dict[str, str]) -> None:
    class Paired(GatewaySettings, section="gateway"):
        @model_validator(mode="after")
        def refuse(self) -> Self:
            raise ValueError("Slots and token do not go together")

    with pytest.raises(SettingsError) as caught:
        read(Paired, ["--token", "s3cret"], env)
    assert caught.value.message == "settings: slots and token do not go together"


def test_load_ends_with_one_line_and_code_2(capsys: pytest.CaptureFixture[str], env: dict[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(GatewaySettings, ["--slots", "0"], env=env)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("gatewayd: --slots: ")


def test_help_shows_every_setting_with_its_unit_and_default(
    capsys: pytest.CaptureFixture[str], env: dict[str, str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load(GatewaySettings, ["--help"], env=env)
    assert not ended.value.code
    text = capsys.readouterr().out
    for field in GatewaySettings.model_fields:
        assert f"--{field.replace('_', '-')}" in text
    assert re.search(r"Seconds between heartbeats\.\s+\(default:\s+15.0\)", text)


def test_settings_are_frozen_and_take_nothing_unknown() -> None:
    settings = GatewaySettings(slots=3)
    with pytest.raises(ValidationError):
        settings.slots = 4  # type: ignore[misc]  # what is tested
    with pytest.raises(ValidationError):
        GatewaySettings(slotz=3)  # type: ignore[call-arg]  # what is tested


def test_an_instance_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOTS", "9")
    assert GatewaySettings().slots == 4


def test_a_program_that_starts_a_daemon_knows_what_it_will_be_told(file: Path, env: dict[str, str]) -> None:
    assert configured("gateway", "token", None, env) is None
    file.write_text('[gateway]\ntoken = "of the file"\n')
    assert configured("gateway", "token", file, env) == "of the file"
    assert configured("orchestrator", "token", file, env) is None
    assert configured("gateway", "token", None, env | {"LLORCH_CONFIG": str(file)}) == "of the file"
    assert configured("gateway", "token", file, env | {"LLORCH_GATEWAY_TOKEN": "of env"}) == "of env"
    with pytest.raises(SettingsError, match="does not exist"):
        configured("gateway", "token", file.with_name("other.toml"), env)
