"""Fits in the ledger, and the published numbers that they are compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.errors import LedgerError
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database, now
from sweepctl.ledger._records import FitRecord
from sweepctl.ledger._studies import check_study, insert, lock_plans
from sweepctl.plain import to_json


@dataclass(frozen=True, slots=True)
class Fits:
    """`Ledger.fits`: the laws and verdicts that were saved."""

    _database: Database

    def save(
        self,
        study: str,
        name: str,
        result: Mapping[str, Any],
        *,
        condition: str = "",
        law: str | None = None,
        n: int | None = None,
        slope: tuple[float, float, float] | None = None,
        r2: float | None = None,
        folder: str | None = None,
    ) -> int:
        """Keep a fit; a result equal to the newest one is not repeated. Returns its number.

        Args:
            study: name of the study.
            name: name of the fit.
            result: the fit as plain data.
            condition: the condition on the cells, as `Cells.results` takes it; empty for all.
            law: the equation.
            n: number of configurations.
            slope: the slope and both ends of its 95 % interval; an end that is not finite is kept
                as unknown.
            r2: share of the variance explained.
            folder: where the fit's files are.

        Raises:
            LedgerError: the study was never recorded.
        """
        numbers = [None if one is None or not math.isfinite(one) else one for one in slope or ()]
        about = {"condition": condition, "law": law, "n": n, "r2": r2, "folder": folder}
        about |= dict(zip(("slope", "slope_low", "slope_high"), numbers, strict=False))
        plain = json.loads(to_json(result))
        mine = sa.and_(t.fit.c.study == study, t.fit.c.name == name)
        with self._database.writing() as connection:
            known = sa.select(t.study.c.name).where(t.study.c.name == study)
            if connection.execute(known).first() is None:
                raise LedgerError(
                    f"the ledger has no study {study!r}", hint="record its plan first"
                )
            newest = connection.execute(
                sa.select(t.fit)
                .where(mine, t.fit.c.condition == condition)
                .order_by(t.fit.c.number.desc())
                .limit(1)
            ).first()
            same = newest is not None and newest.result == plain
            # Asking again without files does not forget where those of the same result are.
            if newest is not None and same and folder in (None, newest.folder):
                return int(newest.number)
            last = connection.execute(sa.select(sa.func.max(t.fit.c.number)).where(mine)).scalar()
            number = 1 + int(last or 0)
            connection.execute(
                t.fit.insert().values(
                    study=study, name=name, number=number, created_at=now(), result=plain, **about
                )
            )
            return number

    def newest(self, study: str) -> list[FitRecord]:
        """The newest result of every saved fit of a study and condition, by name.

        Raises:
            UsageError: there is no such study.
        """
        last = (
            sa.select(t.fit.c.name, t.fit.c.condition, sa.func.max(t.fit.c.number).label("number"))
            .where(t.fit.c.study == study)
            .group_by(t.fit.c.name, t.fit.c.condition)
            .subquery()
        )
        newest = sa.and_(t.fit.c.name == last.c.name, t.fit.c.number == last.c.number)
        with self._database.reading() as connection:
            check_study(connection, study)
            rows = connection.execute(
                sa.select(t.fit)
                .join(last, newest)
                .where(t.fit.c.study == study)
                .order_by(t.fit.c.name, t.fit.c.number)
            )
            return [
                FitRecord(
                    study=row.study,
                    name=row.name,
                    number=row.number,
                    created_at=row.created_at,
                    condition=row.condition,
                    law=row.law,
                    n=row.n,
                    slope_low=row.slope_low,
                    slope_high=row.slope_high,
                    folder=row.folder,
                    result=row.result,
                )
                for row in rows
            ]

    def keep_reference(
        self, edition: str, points: Callable[[], Iterable[Mapping[str, Any]]]
    ) -> int:
        """Keep published numbers next to the measured ones (`v_reference`).

        Args:
            edition: hash of where they come from; numbers of the same edition are not written
                again, those of another one are replaced.
            points: gives the rows, by the names of `v_reference`; not called when it need not be.

        Returns:
            How many rows were written.
        """
        with self._database.reading() as connection:
            if _edition(connection) == edition:
                return 0
        with self._database.writing() as connection:
            lock_plans(connection)
            if _edition(connection) == edition:
                return 0  # another driver was faster
            rows = [
                {name.lower(): value for name, value in point.items()} | {"edition": edition}
                for point in points()
            ]
            connection.execute(t.reference.delete())
            insert(connection, t.reference, rows)
            return len(rows)


def _edition(connection: Connection) -> str | None:
    """The edition of the published numbers that are kept; None without any."""
    found = connection.execute(sa.select(t.reference.c.edition).limit(1)).scalar()
    return None if found is None else str(found)
