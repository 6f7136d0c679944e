"""Documents that an outage made permanent wait for their next attempt again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ROWS = sa.table(
    "index_state",
    sa.column("status", sa.String),
    sa.column("error_code", sa.String),
    sa.column("retry_count", sa.Integer),
    sa.column("next_attempt_at"),
    sa.column("updated_at"),
)
_OF_ONE_DOCUMENT = ("_REJECTED", "VALIDATION_ERROR", "INTERNAL_ERROR")


def upgrade() -> None:
    rows = _ROWS.c
    own = sa.or_(*(rows.error_code.endswith(code, autoescape=True) for code in _OF_ONE_DOCUMENT))
    failed = sa.and_(rows.status == sa.literal_column("'failed'"), rows.next_attempt_at.is_(None), sa.not_(own))
    # After a single attempt only where retries were switched off.
    used_up = rows.retry_count > 1
    op.execute(sa.update(_ROWS).where(failed, used_up).values(next_attempt_at=rows.updated_at, retry_count=0))


def downgrade() -> None:
    """The version before understands these rows as they are."""
