"""Which old rows hold a password? Command lines are recorded without since; older ones are cleaned.

Unlike the revisions before it, this one calls the code of today: the newest rule of what is a
password is the best one for old rows, too.
"""

from alembic import op

from sweepctl.ledger._passwords import remove_passwords

revision = "0003_sweepctl_0.1.0"
down_revision = "0002_sweepctl_0.1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    connection.info["rows_with_passwords"] = remove_passwords(connection)
