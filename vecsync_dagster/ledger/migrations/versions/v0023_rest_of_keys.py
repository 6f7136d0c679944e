"""Documents whose keys hold their tenant are found by the rest of the key: a record that moved is known by it.
Documents that are kept under a former id are found by the key of today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_WHERE = sa.text("rest_id IS NOT NULL")
_FORMER = sa.text("error_code = 'NOT_REPLACED'")


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    op.add_column("index_state", sa.Column("rest_id", sa.Text(collation="C" if postgres else None)))
    table = sa.table("index_state", *(sa.column(name, sa.Text) for name in ("db_id", "content_hash", "rest_id")))
    scope, tenant = sa.column("scope", sa.Text), sa.column("tenant_id", sa.Text)
    slash, by_bytes = sa.literal("/"), "C" if postgres else "BINARY"
    escaped = sa.func.replace(sa.func.replace(sa.collate(tenant, by_bytes), "~", "~0"), "/", "~1", type_=sa.Text)
    own = sa.case((scope == "global", sa.literal("~")), else_=escaped)
    key = slash + sa.collate(table.c.db_id, by_bytes) + slash
    part = slash + own + slash
    # Without the first part that is the tenant: another one may look like it.
    place = sa.func.strpos(key, part) if postgres else sa.func.instr(key, part)
    rest = sa.func.substr(key, 1, place, type_=sa.Text) + sa.func.substr(key, place + sa.func.length(part))
    op.execute(
        table.update()
        .where(table.c.db_id.contains("/"), table.c.content_hash.is_not(None), place > 0)
        .values(rest_id=sa.func.substr(rest, 2, sa.func.length(rest) - 2))
    )
    op.create_index(
        "ix_index_state_rest", "index_state", ["collection", "rest_id"], sqlite_where=_WHERE, postgresql_where=_WHERE
    )
    op.create_index(
        "ix_index_state_former", "index_state", ["collection", "db_id"], sqlite_where=_FORMER, postgresql_where=_FORMER
    )


def downgrade() -> None:
    op.drop_index("ix_index_state_former", "index_state")
    op.drop_index("ix_index_state_rest", "index_state")
    op.drop_column("index_state", "rest_id")
