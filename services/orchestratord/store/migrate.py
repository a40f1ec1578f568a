"""Brings a database to the tables of this release, step by step, in one transaction."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select

from llorch.errors import FailedPrecondition, Reason
from orchestratord.store import schema

MIGRATIONS = Path(__file__).parent / "migrations"


def bring_up_to_date(engine: Engine, back_up: Callable[[str], None]) -> None:
    """Does nothing if it is. `back_up` is called before a database with contents is changed, with the new revision."""
    with engine.begin() as connection:
        present = _revision(connection)
        if present is None:
            _create(connection)
    if present not in (None, schema.REVISION):
        _refuse_if_newer(present)
        back_up(schema.REVISION)
        with engine.begin() as connection:
            upgrade(connection)


def _create(connection: Connection) -> None:
    """The tables as all steps together would have made them, without alembic, which takes memory and time to load."""
    schema.metadata.create_all(connection)
    connection.execute(insert(schema.alembic_version).values(version_num=schema.REVISION))


def _revision(connection: Connection) -> str | None:
    """None for an empty database."""
    if not inspect(connection).has_table(schema.alembic_version.name):
        return None
    return connection.execute(select(schema.alembic_version.c.version_num)).scalar()


def _refuse_if_newer(present: str | None) -> None:
    from alembic.script import ScriptDirectory  # takes a third of a second, and is needed after an upgrade only

    known = {step.revision for step in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if present not in known:
        raise FailedPrecondition(
            Reason.VERSION_SKEW,
            f"the orchestrator's database is of a newer release (revision {present} after {schema.REVISION}); install "
            "that release again, or bring back the copy that it made beside the database before it changed it",
        )


def upgrade(connection: Connection) -> None:
    """All steps that are still to be taken."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
