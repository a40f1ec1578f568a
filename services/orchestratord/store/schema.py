"""The tables. A change here needs a step in `migrations/versions`; a test holds the two together."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

REVISION = "0005"
"""The newest step in `migrations/versions`: the tables that this release reads and writes."""

metadata = MetaData()

cluster = Table(
    "cluster",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cluster_id", String(128), nullable=False),
    Column("control_epoch", BigInteger, nullable=False),
)
"""One row."""

tasks = Table(
    "tasks",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("task_id", String(128), nullable=False, unique=True),
    Column("request", Text, nullable=False),
    Column("accepted_at_ms", BigInteger, nullable=False),
    Column("state", String(16)),
    Column("terminal", Text),
    Column("output", LargeBinary),
    Column("ended_at_ms", BigInteger),
    Column("promise", Text),
    Column("log_epoch", BigInteger),
    Column("payload", LargeBinary),
)
"""Durable tasks. `state` and what follows are null until the task ended; `promise` is that of a deterministic task that
has begun. `log_epoch` is null for those that ended before it was kept, and stands for 1 then. `payload` is that of the
request, which is kept without it, and null once the task has ended.
"""

records = Table(
    "records",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("record_key", Text, primary_key=True),
    Column("body", Text, nullable=False),
)
"""One row per thing that there is: models, apps, assignments, …"""

record_format = Table(
    "record_format",
    metadata,
    Column("number", Integer, nullable=False),
    PrimaryKeyConstraint("number"),
)
"""One row: the format of what is in `body`, `request` and `terminal`, as `store.names` counts them."""

journal = Table(
    "journal",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("record_key", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("journal_by_kind", "kind", "seq"),
)
"""Records of which only the newest are kept, in the order in which they came."""

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("correlation_id", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("details", Text, nullable=False),
    Column("outcome", String(64), nullable=False),
)
"""Only ever appended to; the oldest go."""

alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""One row: the newest step that was taken. As alembic makes it."""
