"""Searches in the ledger: trials get in together with their cells, and come out in their order.

A trial points to an ordinary cell; its state and its result are read from that cell's tasks, so
there is one truth. What is stored with the point is what the sampler needs when the driver is
restarted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database, now
from sweepctl.ledger._studies import add_cells, insert

if TYPE_CHECKING:
    from sweepctl.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """One search of a study.

    Attributes:
        key: hash of all that decides which trials it asks.
        position: its place in the grid of axes, from 0.
        axes: config path -> value of the cell of that grid.
        start: the points it starts with, config path -> value.
    """

    key: str
    position: int
    axes: Mapping[str, Any]
    start: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        search: key of its search.
        number: its number in the search, from 0.
        point: config path -> value of what is searched.
        cell: key of its cell; empty when no cell could be made of it.
        why_not: why there is none.
        sampler: what the sampler needs after a restart.
        rungs: training steps before the end at which its cell is or will be measured.
        until: the last of them while it is not promoted to its end, else None.
    """

    search: str
    number: int
    point: Mapping[str, Any]
    cell: str = ""
    why_not: str = ""
    sampler: Mapping[str, Any] = field(default_factory=dict)
    rungs: tuple[int, ...] = ()
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Searches:
    """`Ledger.searches`: the searches of studies and their trials."""

    _database: Database

    def begin(
        self, study: str, searches: Sequence[SearchRecord]
    ) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """Make these the searches of a recorded study.

        Returns:
            Key -> the points each starts with: those of its first beginning.
        """
        with self._database.writing() as connection:
            mine = t.search.c.study == study
            connection.execute(t.search.update().where(mine).values(is_current=False))
            rows = [
                {
                    "study": study,
                    "key": one.key,
                    "position": one.position,
                    "is_current": True,
                    "axes": dict(one.axes),
                    "start": [dict(point) for point in one.start],
                    "created_at": now(),
                }
                for one in searches
            ]
            insert(connection, t.search, rows, update=("position", "is_current"))
            stored = connection.execute(
                sa.select(t.search.c.key, t.search.c.start).where(mine, t.search.c.is_current)
            )
            return {row.key: tuple(row.start) for row in stored}

    def of(self, study: str) -> list[SearchRecord]:
        """The searches of a study as it was last submitted, in the order of its axes."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(t.search)
                .where(t.search.c.study == study, t.search.c.is_current)
                .order_by(t.search.c.position)
            )
            return [
                SearchRecord(
                    key=row.key, position=row.position, axes=row.axes, start=tuple(row.start)
                )
                for row in rows
            ]

    def trials(self, study: str, keys: Collection[str] | None = None) -> list[TrialRecord]:
        """The trials of some searches of a study, in the order in which they were asked.

        Args:
            study: name of the study; one that was never recorded has none.
            keys: the searches; None for those of the study as it was last submitted.
        """
        with self._database.reading() as connection:
            mine = sa.and_(t.search.c.study == t.trial.c.study, t.search.c.key == t.trial.c.search)
            theirs = sa.and_(t.cell.c.study == t.trial.c.study, t.cell.c.key == t.trial.c.cell)
            asked = (
                sa.select(t.trial, t.cell.c.until)
                .join(t.search, mine)
                .outerjoin(t.cell, theirs)
                .where(t.trial.c.study == study)
            )
            if keys is None:
                asked = asked.where(t.search.c.is_current)
            wanted = None if keys is None else set(keys)
            rungs = _rungs(connection, study)
            return [
                TrialRecord(
                    search=row.search,
                    number=row.number,
                    point=row.point,
                    cell=row.cell or "",
                    why_not=row.why_not,
                    sampler=row.sampler,
                    rungs=tuple(sorted(rungs.get(row.cell, ()))),
                    until=row.until,
                )
                for row in connection.execute(asked.order_by(t.trial.c.place))
                if wanted is None or row.search in wanted
            ]

    def add_trial(self, plan: Plan, trial: TrialRecord) -> None:
        """Record a trial that was asked, with the cell and the tasks that are made of it.

        Args:
            plan: the new cell, if there is one, and its tasks.
            trial: the trial; its search was begun, its cell is in the plan or recorded.
        """
        study = plan.study_name
        with self._database.writing() as connection:
            add_cells(connection, plan)
            last = connection.execute(
                sa.select(sa.func.max(t.trial.c.place)).where(t.trial.c.study == study)
            ).scalar()
            connection.execute(
                t.trial.insert().values(
                    study=study,
                    search=trial.search,
                    number=trial.number,
                    place=0 if last is None else int(last) + 1,
                    point=dict(trial.point),
                    sampler=dict(trial.sampler),
                    cell=trial.cell or None,
                    why_not=trial.why_not,
                    created_at=now(),
                )
            )

    def promote(self, plan: Plan) -> None:
        """Record that trials were promoted: their cells as they are now, and the new tasks.

        Args:
            plan: the cells of some trials that were recorded, and their tasks.
        """
        with self._database.writing() as connection:
            add_cells(connection, plan)


def _rungs(connection: Connection, study: str) -> dict[str, set[int]]:
    """Key of a cell -> the training steps before its end at which it is measured."""
    rows = connection.execute(
        sa.select(t.cell_task.c.cell, t.cell_task.c.stage).where(
            t.cell_task.c.study == study, t.cell_task.c.stage.like("%@%")
        )
    )
    found: dict[str, set[int]] = {}
    for row in rows:
        found.setdefault(row.cell, set()).add(int(row.stage.rpartition("@")[2]))
    return found
