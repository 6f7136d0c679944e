"""Whose an alert is: several projects may share a ledger, and each tells its own channels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alert", sa.Column("project", sa.Text()))


def downgrade() -> None:
    op.drop_column("alert", "project")
