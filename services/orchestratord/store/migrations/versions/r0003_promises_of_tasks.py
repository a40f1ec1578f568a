"""What a deterministic task that has begun holds on to. Those of before have written down none, and start over."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("promise", sa.Text))
