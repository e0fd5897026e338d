"""How does Alembic reach the ledger? On the connection, and in the transaction, of the caller.

Run only by `sweepctl.ledger._schema`, which locks, backs up and recreates the views around it.
"""

from alembic import context

from sweepctl.ledger._schema import VERSION_TABLE
from sweepctl.ledger._tables import PREFIX, metadata


def _ours(name: str | None, kind: str, parents: object) -> bool:
    # The database may be shared: tables of others are none of our business.
    return kind != "table" or (name or "").startswith(PREFIX)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=_ours,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
