"""What came with generation, searches, forecasts and kept fits? Columns, two tables, an index.

Like `r0001` written down once: the types are spelled out here, not taken from the code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002_sweepctl_0.1.0"
down_revision = "0001_sweepctl_0.1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What older rows cannot know: no samples are counted, the device is known by its address only.
    op.add_column(
        "sweep_task",
        sa.Column("samples", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column("sweep_attempt", sa.Column("predicted_s", sa.Double(), nullable=True))
    op.add_column(
        "sweep_attempt",
        sa.Column("device_name", sa.Text(), nullable=False, server_default=sa.text("''")),
    )
    for name in ("dit_parameters", "dit_macs", "until"):
        op.add_column("sweep_cell", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("sweep_cell", sa.Column("generation_dataset", sa.Text(), nullable=True))
    op.add_column(
        "sweep_fit",
        sa.Column("condition", sa.Text(), nullable=False, server_default=sa.text("''")),
    )
    for name in ("law", "folder"):
        op.add_column("sweep_fit", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("sweep_fit", sa.Column("n", sa.Integer(), nullable=True))
    for name in ("slope", "slope_low", "slope_high", "r2"):
        op.add_column("sweep_fit", sa.Column(name, sa.Double(), nullable=True))
    op.create_index(
        "ix_sweep_metric_final",
        "sweep_metric",
        ["task", "dataset"],
        unique=False,
        sqlite_where=sa.text("step = -1"),
        postgresql_where=sa.text("step = -1"),
    )
    op.create_table(
        "sweep_search",
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("axes", sa.JSON(), nullable=False),
        sa.Column("start", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"], ["sweep_study.name"], name=op.f("fk_sweep_search_study")
        ),
        sa.PrimaryKeyConstraint("study", "key", name=op.f("pk_sweep_search")),
    )
    op.create_table(
        "sweep_trial",
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("point", sa.JSON(), nullable=False),
        sa.Column("sampler", sa.JSON(), nullable=False),
        sa.Column("cell", sa.Text(), nullable=True),
        sa.Column("why_not", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study", "search"],
            ["sweep_search.study", "sweep_search.key"],
            name=op.f("fk_sweep_trial_study"),
        ),
        sa.ForeignKeyConstraint(
            ["study", "cell"],
            ["sweep_cell.study", "sweep_cell.key"],
            name=op.f("fk_sweep_trial_cell"),
        ),
        sa.PrimaryKeyConstraint("study", "search", "number", name=op.f("pk_sweep_trial")),
    )
    op.create_index(
        op.f("ix_sweep_trial_study_place"), "sweep_trial", ["study", "place"], unique=False
    )
