"""Settings of a daemon: flag > environment > TOML file > default.

A daemon declares one class:

    class OrchestratorSettings(DaemonSettings, section="orchestrator"):
        bind: str = Field("127.0.0.1:8090", description="Address to listen on, host:port.")

and gets `--bind`, `LLORCH_ORCHESTRATOR_BIND`, `bind` in the section `[orchestrator]` of the settings file,
and a `--help` that shows descriptions and defaults. Descriptions say the unit.
"""

import difflib
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as BadFlag

from llorch.errors import InvalidArgument, LlorchError, Reason
from llorch.own_log import OwnLog

KNOWN_SECTIONS = frozenset(
    {"orchestrator", "pool_manager", "gateway", "worker", "models", "apps", "assignments", "logging", "simulate"}
)
TOP_KEYS = frozenset({"models_dir"})
"""May stand above all sections; the daemon that has such a setting reads it."""
_SHARED_VARIABLES = {"auth_optional": "AUTH_OPTIONAL"}
"""Variables that tell all daemons alike, by the setting. What is said of one daemon, in its section as elsewhere, goes
before; an empty variable says nothing.
"""
_EXIT_SETTINGS = 2


class SettingsError(InvalidArgument):
    """Settings that can't be right; the message is one line that names the place and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INVALID_FIELD, message)


def auth_optional_field() -> Any:
    """The field `auth_optional`, for daemons whose callers show a token."""
    return Field(
        False,
        description="Callers of this machine need not show the token. Behind a reverse proxy that does not say that it "
        "forwards, as nginx by default, that is every client there is. For all daemons: the variable AUTH_OPTIONAL.",
    )


class DaemonSettings(BaseSettings):
    """What all daemons have in common. Frozen; unknown keys are errors."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", cli_kebab_case=True, cli_implicit_flags=True)
    section: ClassVar[str]
    """The settings file's section, and the middle of the environment's names. Set as a class argument."""

    config: Path | None = Field(None, description="Settings file (TOML). Environment: LLORCH_CONFIG.")
    address_file: Path | None = Field(
        None, description="File to write the bound host:port to once this daemon is serving."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is logged. For all daemons: `level` in the section [logging]."
    )
    log_file: Path | None = Field(
        None,
        description="File that stdout and stderr lead to. When it is long it becomes NAME.1, and a new one begins.",
    )
    log_limit_mib: int = Field(10, ge=1, le=10_000, description="MiB at which the log file is long.")

    @property
    def own_log(self) -> OwnLog | None:
        return OwnLog(self.log_file, self.log_limit_mib * 2**20) if self.log_file is not None else None

    def __init_subclass__(cls, *, section: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if section:
            cls.section = section

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # pydantic-settings' interface
        init_settings: PydanticBaseSettingsSource,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """An instance holds what it was given: `load` alone reads flags, environment and file."""
        return (init_settings,)


Settings = TypeVar("Settings", bound=DaemonSettings)


def load(settings_class: type[Settings], argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process; bad ones end it with one line on stderr and exit code 2, and so do defaults that
    can't be had.
    """
    try:
        return read(settings_class, argv, os.environ if env is None else env)
    except LlorchError as error:
        refuse(settings_class, error)


def refuse(settings_class: type[DaemonSettings], error: LlorchError) -> NoReturn:
    """Ends this process as bad settings do."""
    print(f"{_program(settings_class)}: {error.message}", file=sys.stderr)  # noqa: T201  # nothing else is up yet
    sys.exit(_EXIT_SETTINGS)


def read(settings_class: type[Settings], argv: Sequence[str], env: Mapping[str, str]) -> Settings:
    """As `load`, but raises SettingsError."""
    flags = _read_flags(settings_class, argv)
    variables = _read_environment(settings_class, env)
    file = _find_file(flags.get("config"), env)
    keys, places = _read_file(settings_class, file) if file else ({}, {})
    shared = {name: value for name, value in _read_shared(settings_class, env).items() if name not in keys}
    values: dict[str, Any] = {**shared, **keys, **variables, **flags}
    if file:
        values["config"] = file
    try:
        return settings_class(**values)
    except ValidationError as error:
        raise SettingsError(_describe(settings_class, error, flags, variables, shared, places)) from None


def configured(section: str, name: str, config: Path | None, env: Mapping[str, str]) -> str | None:
    """What environment and settings file say about a text of a daemon, for a program that starts it and needs to know.
    `config` is the file that was named. Raises SettingsError.
    """
    variable = env.get(f"LLORCH_{section}_{name}".upper())
    file = _find_file(str(config) if config else None, env)
    if variable is not None or file is None:
        return variable
    value = _content(file).get(section, {}).get(name)
    return value if isinstance(value, str) else None


def _read_flags(settings_class: type[DaemonSettings], argv: Sequence[str]) -> dict[str, Any]:
    program = _program(settings_class)
    try:
        return CliSettingsSource(
            settings_class,
            cli_prog_name=program,
            cli_parse_args=list(argv),
            cli_exit_on_error=False,
            cli_hide_none_type=True,
        )()
    except BadFlag as error:
        text = str(error).removeprefix("error parsing CLI: ")
        unknown = text.removeprefix("unrecognized arguments: ").split(" ")[0]
        if unknown == text.split(" ")[0]:
            raise SettingsError(text) from None
        known = [_flag(name) for name in settings_class.model_fields]
        raise SettingsError(f"{unknown} is no flag of {program}{_nearest(unknown, known)}") from None


def _read_environment(settings_class: type[DaemonSettings], env: Mapping[str, str]) -> dict[str, Any]:
    prefix = _variable(settings_class, "")
    # Which file is read, LLORCH_CONFIG tells all daemons alike.
    known = {_variable(settings_class, name) for name in settings_class.model_fields if name != "config"}
    for name in env:
        if name.startswith(prefix) and name not in known:
            raise SettingsError(f"the environment sets {name}, which means nothing{_nearest(name, known)}")
    source = EnvSettingsSource(settings_class, env_prefix=prefix)
    source.env_vars = {name.lower(): value for name, value in env.items() if name in known}
    try:
        return source()
    except BadFlag as error:
        raise SettingsError(f"{error}; in the environment, lists and tables are written as JSON") from None


def _read_shared(settings_class: type[DaemonSettings], env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: env[variable]
        for name, variable in _SHARED_VARIABLES.items()
        if name in settings_class.model_fields and env.get(variable)
    }


def _find_file(flag: str | None, env: Mapping[str, str]) -> Path | None:
    """A file that was named has to be there; the usual places are searched only if none was named."""
    named = flag or env.get("LLORCH_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise SettingsError(f"the settings file {path} does not exist")
        return path
    home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "/")) / ".config")
    usual = (home / "llama-orch" / "llama-orch.toml", Path("/etc/llama-orch/llama-orch.toml"))
    return next((path for path in usual if path.is_file()), None)


def _read_file(settings_class: type[DaemonSettings], file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings by name, and where in the file each stands."""
    content = _content(file)
    known = settings_class.model_fields.keys() - {"config"}
    for name, value in content.items():
        if name not in KNOWN_SECTIONS | TOP_KEYS:
            raise SettingsError(
                f"{file} has the section [{name}], which means nothing{_nearest(name, KNOWN_SECTIONS)}"
                if isinstance(value, dict | list) and name not in known
                else f"{file} has the key {name!r} above all sections, where it means nothing; each daemon's keys "
                f"stand in its section{_section_of(name, settings_class.section, known)}"
            )
    shared = _section(file, content, "logging", {"level"})
    keys = _section(file, content, settings_class.section, known)
    places = {name: f"{file}, section [{settings_class.section}]: {name}" for name in keys}
    if "level" in shared:
        keys.setdefault("log_level", shared["level"])
        places.setdefault("log_level", f"{file}, section [logging]: level")
    for name in TOP_KEYS & content.keys() & known:
        keys.setdefault(name, content[name])
        places.setdefault(name, f"{file}: {name}")
    return keys, places


def _section_of(name: str, own: str, known: Iterable[str]) -> str:
    """Where a key belongs that stands above all sections; empty if it is none of this daemon's."""
    section = "logging" if name == "level" else own if name in known else ""
    return f", this one in [{section}]" if section else ""


def _content(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None


def _section(file: Path, content: Mapping[str, Any], section: str, known: Iterable[str]) -> dict[str, Any]:
    keys = content.get(section, {})
    if not isinstance(keys, dict):
        raise SettingsError(f"{file}: {section} has to be a section, [{section}]")
    for key in keys:
        if key not in set(known):
            raise SettingsError(f"{file}, section [{section}]: unknown key {key!r}{_nearest(key, known)}")
    return dict(keys)


def _describe(
    settings_class: type[DaemonSettings],
    error: ValidationError,
    flags: Mapping[str, Any],
    variables: Mapping[str, Any],
    shared: Mapping[str, str],
    places: Mapping[str, str],
) -> str:
    """The first of the bad values: where it was set, what it is, and what would be right."""
    first = error.errors(include_url=False)[0]
    name, *inner = (str(part) for part in first["loc"]) if first["loc"] else ("",)
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing" and not inner:
        return f"{_flag(name)} is not set: {settings_class.model_fields[name].description or 'it is required'}"
    if name in flags:
        place = _flag(name)
    elif name in variables:
        place = _variable(settings_class, name)
    elif name in shared:
        place = _SHARED_VARIABLES[name]
    else:
        place = places.get(name, name or "settings")
    path = "".join(f".{part}" for part in inner)
    shown = "" if "token" in name or not name else f" (got {first['input']!r})"
    return f"{place}{path}: {what[:1].lower()}{what[1:]}{shown}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(settings_class: type[DaemonSettings], name: str) -> str:
    return f"LLORCH_{settings_class.section}_{name}".upper()


def _program(settings_class: type[DaemonSettings]) -> str:
    names = {"orchestrator": "orchestratord", "pool_manager": "pool-managerd", "worker": "worker-orcd"}
    return names.get(settings_class.section, f"{settings_class.section}d")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
