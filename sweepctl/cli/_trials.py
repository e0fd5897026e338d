"""The trials of a search: their outcomes, the best of them, and their export to Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.cli._output import say
from sweepctl.cli._session import study_of
from sweepctl.errors import LedgerError, UsageError
from sweepctl.kinds import final_measurements
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.ledger import CellState, Ledger, SearchRecord, Table, TrialRecord
    from sweepctl.search import Ended, Past
    from sweepctl.study import Search


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One trial of a study and its outcome.

    Attributes:
        record: the trial.
        axes: config path -> value of the cell of the grid that its search belongs to.
        cell: number of its cell, None when there is none.
        state: the cell's state, or "refused".
        searched: config path -> value of what is searched at its point.
        ended: what it came to, None while it is open and where it waits at a rung.
        rungs: training step -> value of the objective there, of a search that prunes.
    """

    record: TrialRecord
    axes: Mapping[str, Any]
    cell: int | None
    state: str
    searched: Mapping[str, Any]
    ended: Ended | None
    rungs: Mapping[int, float]

    @property
    def past(self) -> Past:
        """The same as the search package takes it."""
        from sweepctl.search import Past

        return Past(
            point=self.searched,
            sampler=self.record.sampler,
            ended=self.ended,
            rungs=self.rungs,
            waits=self.state == "pruned",
        )


def searched(ledger: Ledger, study: str) -> Search:
    """What a recorded study searches.

    Raises:
        UsageError: there is no such study, or it has no search.
    """
    from sweepctl.study import settled

    search = settled(study_of(study, ledger))
    if search is None:
        raise UsageError(
            f"{study} is a grid, it has no search",
            hint=f"sweepctl results {study} prints its cells",
        )
    return search


def trials(ledger: Ledger, study: str, search: Search) -> list[Made]:
    """The trials of a study, in the order in which they were asked."""
    from sweepctl.search import Ended

    axes = {one.key: one.axes for one in ledger.searches.of(study)}
    cells = {cell.key: cell for cell in ledger.cells.of(study)}
    made = []
    for record in ledger.searches.trials(study):
        cell = cells.get(record.cell)
        state = "refused" if cell is None else cell.state
        ended = None
        if cell is None or state in ("failed", "blocked"):
            ended = Ended(values=None)
        elif state == "done":
            names = {stage: task.fingerprint for stage, task in cell.stages.items()}
            ended = _came_to(ledger, search, names)
        made.append(
            Made(
                record=record,
                axes=axes[record.search],
                cell=None if cell is None else cell.index,
                state=state,
                searched=search.at(axes[record.search]).searched_part(record.point),
                ended=ended,
                rungs={} if cell is None else _at_rungs(ledger, search, record, cell),
            )
        )
    return made


def facts(search: Search, made: Sequence[Made]) -> dict[str, Any]:
    """How far a search is, by its trials: how many count, and whether the value to stop at is met.

    A trial counts if it is the first with its cell; a point that makes none costs nothing.
    """
    cells = {one.record.cell for one in made if one.record.cell}
    there = [one.record.number for one in made if one.ended and one.ended.reaches(search)]
    return {
        "trials": len(made),
        "counted": len(cells),
        "most": search.trials,
        "measured": sum(1 for one in made if one.ended and one.ended.values is not None),
        "pruned": sum(1 for one in made if one.state == "pruned"),
        "objective": search.objectives[0].metric,
        "stop_value": search.value,
        "reached_by": min(there, default=None),
    }


def stop_in_words(found: Mapping[str, Any]) -> str:
    """Whether the value to stop at is met, of `facts`; "" without one."""
    if found["stop_value"] is None:
        return ""
    by = found["reached_by"]
    said = "not reached" if by is None else f"reached by trial {by}"
    return f"value to stop at: {found['objective']} {found['stop_value']:g}, {said}"


def searches(ledger: Ledger, study: str) -> list[dict[str, Any]]:
    """How far each search of a study is, with its axes; see `facts`. Nothing of a grid."""
    from sweepctl.study import short_name

    records = ledger.searches.of(study)
    if not records:
        return []
    search = searched(ledger, study)
    made = trials(ledger, study, search)
    return [
        {"axes": {short_name(path): value for path, value in record.axes.items()}}
        | facts(search, [one for one in made if one.record.search == record.key])
        for record in records
    ]


def searches_in_words(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of `searches`, a line each."""
    for one in found:
        axes = ", ".join(f"{name} {value}" for name, value in one["axes"].items())
        stop = stop_in_words(one)
        yield (
            f"search{f' at {axes}' if axes else ''}: {one['counted']:,} of {one['most']:,} trials"
            + (f"; {stop}" if stop else "")
        )


def _at_rungs(
    ledger: Ledger, search: Search, trial: TrialRecord, cell: CellState
) -> dict[int, float]:
    from sweepctl.plan import measuring_stage, rung_stage

    objective = search.objectives[0]
    return {
        step: value.value
        for step in trial.rungs
        if (task := cell.stages.get(rung_stage(measuring_stage(search), step))) is not None
        for value in ledger.tasks.metrics(task.fingerprint, step)
        if value.name == objective.metric
    }


def _came_to(ledger: Ledger, search: Search, tasks: Mapping[str, str]) -> Ended:
    from sweepctl.search import ended

    measured = {
        (value.name, value.dataset): value.value
        for name in final_measurements(tasks).values()
        for value in ledger.tasks.metrics(name)
    }
    return ended(search, measured)


def chosen(made: Sequence[Made], search: Search, *, best: bool, pareto: bool) -> list[Made]:
    """The best trials, of each search on its own; all of them when neither is asked for.

    Raises:
        UsageError: the best of several objectives is asked for.
    """
    from sweepctl.statistics import front_of

    if not (best or pareto):
        return list(made)
    if best and len(search.objectives) > 1:
        names = ", ".join(one.metric for one in search.objectives)
        raise UsageError(
            f"there is no best trial of several objectives ({names})", hint="ask for --pareto"
        )
    kept = []
    for key in dict.fromkeys(one.record.search for one in made):
        mine = [one for one in made if one.record.search == key]
        whole = [
            (one, costs)
            for one in mine
            if one.ended is not None and (costs := one.ended.costs(search)) is not None
        ]
        indices = front_of([costs for _, costs in whole])
        found = [whole[index] for index in indices]
        if best:
            found = found[:1]  # equal ones came later
        kept += [one for one, _ in sorted(found, key=lambda pair: pair[1])]
    return kept


def table(ledger: Ledger, study: str, *, best: bool, pareto: bool) -> Table:
    """The trials of a study as a table: axes, point, objectives; see `chosen`."""
    from sweepctl.ledger import Table
    from sweepctl.study import short_name

    search = searched(ledger, study)
    made = trials(ledger, study, search)
    rows = chosen(made, search, best=best, pareto=pareto)
    gridded = list(made[0].axes) if made else []
    paths = [dimension.path for dimension in search.space]
    several = len({one.dataset for one in search.objectives}) > 1
    objectives = [
        f"{one.metric}@{one.dataset}" if several else one.metric for one in search.objectives
    ]
    if search.prune is not None:
        objectives += ["rung", f"{search.objectives[0].metric}@rung"]
    limits = ["kept"] if search.keep_if else []
    columns = ("trial", "cell", *map(short_name, (*gridded, *paths)), "state")
    table = Table(
        columns=(*columns, *objectives, *limits),
        rows=tuple(_row(one, gridded, paths, search) for one in rows),
    )
    done = sum(1 for one in made if one.ended is not None and one.ended.values is not None)
    over = many(len(made), "trial")
    cut = sum(1 for one in made if one.state == "pruned")
    pruned = f", {cut} pruned" if search.prune is not None else ""
    say(f"{over}, {done} measured{pruned}; {many(len(rows), 'row')}")
    return table


def _row(
    one: Made, gridded: Sequence[str], paths: Sequence[str], search: Search
) -> tuple[Any, ...]:
    ended = one.ended
    values: tuple[Any, ...] = (None,) * len(search.objectives)
    if ended is not None and ended.values is not None:
        values = ended.values
    rung: tuple[Any, ...] = ()
    if search.prune is not None:
        rung = max(one.rungs.items(), default=(None, None))
    kept = () if not search.keep_if else (None if ended is None else ended.is_kept,)
    return (
        one.record.number,
        one.cell,
        *(one.axes.get(path) for path in gridded),
        *(one.record.point.get(path) for path in paths),
        one.state,
        *values,
        *rung,
        *kept,
    )


def export_optuna(ledger: Ledger, study: str, out: Path) -> int:
    """Write the searches of a study as Optuna's own storage, a SQLite file; returns the trials.

    Raises:
        UsageError: the study has no search, or the file is none that Optuna may write.
        LedgerError: it cannot be written.
    """
    from sweepctl.search import export
    from sweepctl.study import short_name

    _check_no_ledger(out)
    search = searched(ledger, study)
    made = trials(ledger, study, search)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error
    written = 0
    for record in ledger.searches.of(study):
        mine = [one for one in made if one.record.search == record.key]
        written += export(
            search,
            [one.past for one in mine],
            name=_name(study, record, short_name),
            url=f"sqlite:///{out.absolute()}",
            notes=[{"cell": one.cell, "state": one.state} for one in mine],
        )
    return written


def _check_no_ledger(out: Path) -> None:
    """Refuse a file that Optuna's tables do not belong into: any ledger, whatever opened it."""
    from sweepctl.ledger import ledger_exists

    hint = "choose another file with --optuna"
    try:
        held = ledger_exists(str(out.absolute()))
    except (LedgerError, OSError) as error:
        said = error.message if isinstance(error, LedgerError) else error.strerror
        raise UsageError(f"cannot write {out}: {said}", hint=hint) from error
    if held:
        raise UsageError(f"{out} holds sweepctl's own results, not Optuna's", hint=hint)


def _name(study: str, record: SearchRecord, short_name: Any) -> str:
    axes = ", ".join(f"{short_name(path)} {value}" for path, value in record.axes.items())
    return f"{study} ({axes})" if axes else study
