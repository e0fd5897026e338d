"""What came with memory? How many samples of a training fitted which device: one table.

Like `r0001` written down once: the types are spelled out here, not taken from the code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_sweepctl_0.1.0"
down_revision = "0003_sweepctl_0.1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweep_fitted",
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("device_name", sa.Text(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("ranks", sa.Integer(), nullable=False),
        sa.Column("micro_batch", sa.Integer(), nullable=True),
        sa.Column("recompute", sa.Boolean(), nullable=False),
        sa.Column("peak_bytes", sa.BigInteger(), nullable=True),
        sa.Column("free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["task"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_fitted_task")
        ),
        sa.PrimaryKeyConstraint(
            "configuration",
            "device_name",
            "memory_bytes",
            "ranks",
            name=op.f("pk_sweep_fitted"),
        ),
    )
