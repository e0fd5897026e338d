"""What did the tables look like in the first release? Written down once, never changed again.

The types are spelled out here, not taken from the code: the code moves on, this file does not.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001_sweepctl_0.1.0"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweep_study",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sweep_study")),
    )
    op.create_table(
        "sweep_task",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("macs", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.Double(), nullable=False),
        sa.Column("disk_bytes", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failed_attempts", sa.Integer(), nullable=False),
        sa.Column("result_attempt", sa.Integer(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'done') = (result_attempt IS NOT NULL)", name=op.f("ck_sweep_task_result")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done', 'failed')", name=op.f("ck_sweep_task_state")
        ),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_sweep_task")),
        sa.UniqueConstraint("id", name=op.f("uq_sweep_task_id")),
    )
    op.create_index(op.f("ix_sweep_task_kind_state"), "sweep_task", ["kind", "state"], unique=False)
    op.create_index(op.f("ix_sweep_task_state"), "sweep_task", ["state"], unique=False)
    op.create_table(
        "sweep_attempt",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.Double(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("steps", sa.BigInteger(), nullable=True),
        sa.Column("loss", sa.Double(), nullable=True),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result_values", sa.JSON(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "state IN ('running', 'done', 'failed', 'stopped', 'lost')",
            name=op.f("ck_sweep_attempt_state"),
        ),
        sa.ForeignKeyConstraint(
            ["task"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_attempt_task")
        ),
        sa.PrimaryKeyConstraint("task", "number", name=op.f("pk_sweep_attempt")),
    )
    op.create_index(
        "uq_sweep_attempt_running",
        "sweep_attempt",
        ["task"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "sweep_cell",
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("p", sa.Integer(), nullable=False),
        sa.Column("q", sa.Integer(), nullable=False),
        sa.Column("c", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.Text(), nullable=False),
        sa.Column("decoder", sa.Text(), nullable=False),
        sa.Column("resolution", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("e", sa.BigInteger(), nullable=False),
        sa.Column("compression", sa.Double(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("macs", sa.BigInteger(), nullable=False),
        sa.Column("encoder_parameters", sa.BigInteger(), nullable=False),
        sa.Column("decoder_parameters", sa.BigInteger(), nullable=False),
        sa.Column("encoder_macs", sa.BigInteger(), nullable=False),
        sa.Column("decoder_macs", sa.BigInteger(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=True),
        sa.Column("datasets", sa.JSON(), nullable=False),
        sa.Column("axes", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["sweep_study.name"], name=op.f("fk_sweep_cell_study")),
        sa.PrimaryKeyConstraint("study", "key", name=op.f("pk_sweep_cell")),
    )
    op.create_index(
        op.f("ix_sweep_cell_study_is_current_number"),
        "sweep_cell",
        ["study", "is_current", "number"],
        unique=False,
    )
    op.create_table(
        "sweep_dependency",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_dependency_parent")
        ),
        sa.ForeignKeyConstraint(
            ["task"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_dependency_task")
        ),
        sa.PrimaryKeyConstraint("task", "role", "parent", name=op.f("pk_sweep_dependency")),
    )
    op.create_index(
        op.f("ix_sweep_dependency_parent"), "sweep_dependency", ["parent"], unique=False
    )
    op.create_table(
        "sweep_file",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_file_task")
        ),
        sa.PrimaryKeyConstraint("task", "name", name=op.f("pk_sweep_file")),
    )
    op.create_table(
        "sweep_fit",
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["sweep_study.name"], name=op.f("fk_sweep_fit_study")),
        sa.PrimaryKeyConstraint("study", "name", "number", name=op.f("pk_sweep_fit")),
    )
    op.create_table(
        "sweep_metric",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("se", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["task"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_metric_task")
        ),
        sa.PrimaryKeyConstraint(
            "task", "name", "dataset", "protocol", "step", name=op.f("pk_sweep_metric")
        ),
    )
    op.create_index(
        op.f("ix_sweep_metric_name_dataset_step"),
        "sweep_metric",
        ["name", "dataset", "step"],
        unique=False,
    )
    op.create_table(
        "sweep_reference",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("edition", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("figure", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("dataset", sa.Text(), nullable=True),
        sa.Column("variant", sa.Text(), nullable=True),
        sa.Column("encoder", sa.Text(), nullable=True),
        sa.Column("decoder", sa.Text(), nullable=True),
        sa.Column("encoder_parameters", sa.BigInteger(), nullable=True),
        sa.Column("decoder_parameters", sa.BigInteger(), nullable=True),
        sa.Column("resolution", sa.Integer(), nullable=True),
        sa.Column("frames", sa.Integer(), nullable=True),
        sa.Column("q", sa.Integer(), nullable=True),
        sa.Column("p", sa.Integer(), nullable=True),
        sa.Column("c", sa.Integer(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column("e", sa.BigInteger(), nullable=True),
        sa.Column("setting", sa.Text(), nullable=True),
        sa.Column("generator", sa.Text(), nullable=True),
        sa.Column("cfg", sa.Double(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("value_high", sa.Double(), nullable=True),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep_reference")),
    )
    op.create_table(
        "sweep_submission",
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("study_text", sa.Text(), nullable=False),
        sa.Column("resolved", sa.JSON(), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("argv", sa.JSON(), nullable=False),
        sa.Column("git_commit", sa.Text(), nullable=False),
        sa.Column("git_dirty", sa.Boolean(), nullable=False),
        sa.Column("sweepctl_version", sa.Text(), nullable=False),
        sa.Column("asked_sha256", sa.Text(), nullable=False),
        sa.Column("plan_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"], ["sweep_study.name"], name=op.f("fk_sweep_submission_study")
        ),
        sa.PrimaryKeyConstraint("study", "number", name=op.f("pk_sweep_submission")),
    )
    op.create_table(
        "sweep_cell_task",
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study", "cell"],
            ["sweep_cell.study", "sweep_cell.key"],
            name=op.f("fk_sweep_cell_task_study"),
        ),
        sa.ForeignKeyConstraint(
            ["task"], ["sweep_task.fingerprint"], name=op.f("fk_sweep_cell_task_task")
        ),
        sa.PrimaryKeyConstraint("study", "cell", "stage", name=op.f("pk_sweep_cell_task")),
    )
    op.create_index(op.f("ix_sweep_cell_task_task"), "sweep_cell_task", ["task"], unique=False)
