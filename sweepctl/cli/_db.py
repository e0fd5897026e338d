"""`db`: manage the results database."""

from __future__ import annotations

from sweepctl.cli._options import Json
from sweepctl.cli._output import give, give_json
from sweepctl.cli._session import database


def upgrade() -> None:
    """Bring the database to the newest schema; a SQLite file is copied before.

    Example: sweepctl db upgrade --db postgresql://host/results
    """
    from sweepctl.ledger import upgrade_ledger

    give(upgrade_ledger(database()))


def views(as_json: Json = False) -> None:
    """Print the views and what their columns mean.

    Example: sweepctl db views
    """
    from sweepctl.ledger import VIEWS

    if as_json:
        give_json(
            {
                name: {"about": about, "columns": dict(columns)}
                for name, (about, columns) in VIEWS.items()
            }
        )
        return
    for name, (about, columns) in VIEWS.items():
        give(f"{name}: {about}")
        for column, meaning in columns.items():
            give(f"    {column:<18}{meaning}")
