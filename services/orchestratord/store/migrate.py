"""Brings a database to the tables of this release, step by step, in one transaction."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from llorch.errors import FailedPrecondition, Reason
from orchestratord.store import schema

MIGRATIONS = Path(__file__).parent / "migrations"


def bring_up_to_date(engine: Engine, back_up: Callable[[str], None]) -> None:
    """Does nothing if it is. `back_up` is called before a database with contents is changed, with the new revision."""
    with engine.begin() as connection:
        present = _revision(connection)
    if present == schema.REVISION:
        return
    if present is not None:
        _refuse_if_newer(present)
        back_up(schema.REVISION)
    with engine.begin() as connection:
        _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    """None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_if_newer(present: str) -> None:
    from alembic.script import ScriptDirectory  # takes a third of a second, and is needed after an upgrade only

    known = {step.revision for step in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if present not in known:
        raise FailedPrecondition(
            Reason.VERSION_SKEW,
            f"the orchestrator's database is of a newer release (revision {present} after {schema.REVISION}); install "
            "that release again, or bring back the copy that it made beside the database before it changed it",
        )


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
