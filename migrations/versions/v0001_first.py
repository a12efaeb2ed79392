"""The first schema: tenants, keys, fleet, the log, webhooks; roles apart and row-level security in force."""

from __future__ import annotations

from alembic import op

from migrations.scripts import run_scripts

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_scripts("0001")


def downgrade() -> None:
    op.execute("drop schema vx cascade")
