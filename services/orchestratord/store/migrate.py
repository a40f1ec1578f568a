"""Brings a database to the tables of this release and what is in them to its names, in one transaction.

Alembic's steps change tables; the changes in `store.names` change records.
"""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select, update

from llorch.errors import FailedPrecondition, Reason
from orchestratord.store import names, schema, upgrade

MIGRATIONS = Path(__file__).parent / "migrations"

_FIRST_FORMAT = 0
"""The format of records in databases that do not store its number."""


def version() -> str:
    """The tables and the format of records that this release reads and writes."""
    return f"{schema.REVISION}.{names.FORMAT}"


def bring_up_to_date(engine: Engine, back_up: Callable[[str], None]) -> None:
    """Does nothing if it is. `back_up` is called before a database with contents is changed, with the new version.

    Raises FailedPrecondition, and has changed nothing, if that can't be done.
    """
    with engine.begin() as connection:
        revision = _revision(connection)
        if revision is None:
            _create(connection)
            return
        number = _format(connection)
    if (revision, number) == (schema.REVISION, names.FORMAT):
        return
    _refuse_if_newer(revision, number)
    back_up(version())
    with engine.begin() as connection:
        if revision != schema.REVISION:
            take_steps(connection)
        upgrade.upgrade_all(connection, number)
        connection.execute(update(schema.record_format).values(number=names.FORMAT))


def _create(connection: Connection) -> None:
    """The tables as all steps together would have made them, without alembic, which takes memory and time to load."""
    schema.metadata.create_all(connection)
    connection.execute(insert(schema.alembic_version).values(version_num=schema.REVISION))
    connection.execute(insert(schema.record_format).values(number=names.FORMAT))


def _revision(connection: Connection) -> str | None:
    """None for an empty database."""
    if not inspect(connection).has_table(schema.alembic_version.name):
        return None
    return connection.execute(select(schema.alembic_version.c.version_num)).scalar()


def _format(connection: Connection) -> int:
    if not inspect(connection).has_table(schema.record_format.name):
        return _FIRST_FORMAT
    number: int = connection.execute(select(schema.record_format.c.number)).scalar_one()
    return number


def _refuse_if_newer(revision: str, number: int) -> None:
    from alembic.script import ScriptDirectory  # takes a third of a second, and is needed after an upgrade only

    known = {step.revision for step in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if revision not in known or number > names.FORMAT:
        raise FailedPrecondition(
            Reason.VERSION_SKEW,
            f"the orchestrator's database is of a newer release (version {revision}.{number} after {version()}); "
            "install that release again, or bring back the copy that it made beside the database before it changed it",
        )


def take_steps(connection: Connection) -> None:
    """Those of the tables that are still to be taken."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
