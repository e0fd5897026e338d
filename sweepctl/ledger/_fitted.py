"""Memory in the ledger: how many samples of a training fitted which device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import sqlalchemy as sa

from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database, chunks, now
from sweepctl.ledger._studies import insert
from sweepctl.runs import Fitted


@dataclass(frozen=True, slots=True)
class FittedMemory:
    """`Ledger.fitted`: what trainings have found out about memory."""

    _database: Database

    def keep(self, fingerprint: str, configuration: str, fitted: Fitted) -> None:
        """Keep what a training found; it replaces what was known of the same.

        Args:
            fingerprint: of the task.
            configuration: key of all trainings that take the same memory.
            fitted: what it found.
        """
        row = {
            "configuration": configuration,
            **asdict(fitted),
            "task": fingerprint,
            "seen_at": now(),
        }
        keys = {column.name for column in t.fitted.primary_key}
        changed = tuple(name for name in row if name not in keys)
        with self._database.writing() as connection:
            insert(connection, t.fitted, [row], update=changed)

    def of(self, configurations: Iterable[str]) -> dict[str, tuple[Fitted, ...]]:
        """Configuration -> what is known of it, on each device and number of processes."""
        columns = [t.fitted.c[one.name] for one in fields(Fitted)]
        found: dict[str, list[Fitted]] = {}
        with self._database.reading() as connection:
            for some in chunks(sorted(set(configurations))):
                rows = connection.execute(
                    sa.select(t.fitted.c.configuration, *columns)
                    .where(t.fitted.c.configuration.in_(some))
                    .order_by(t.fitted.c.seen_at)
                )
                for row in rows:
                    plain = row._asdict()
                    found.setdefault(plain.pop("configuration"), []).append(Fitted(**plain))
        return {key: tuple(rows) for key, rows in found.items()}
