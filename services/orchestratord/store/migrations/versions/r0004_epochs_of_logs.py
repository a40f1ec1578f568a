"""Which log the output of a finished task stands in, so that no cursor into an earlier one is taken for one of it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("log_epoch", sa.BigInteger))
