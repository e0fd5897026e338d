"""What stands on which page? One function a page: it asks the reader and fills a template.

The server calls these for browsers; `write_report` uses the same templates for its one file. A page
that changes while it is looked at has a live part, which is asked for again every two seconds; its
function is called `..._live` and gives that part alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.errors import UsageError
from sweepctl.kinds import trainings
from sweepctl.ledger import Table
from sweepctl.ui._folders import Curve
from sweepctl.ui._plots import ALL_LAWS, better, choices, drawn, rows_of
from sweepctl.ui._reading import Reader
from sweepctl.ui._records import STATES, PointPage, Standing, TaskPage
from sweepctl.ui._words import environment, span

ROWS = 50
"""Rows of the cells' table on a page."""

SQUARES = 160
"""Cells up to which the grid has a square each; more are drawn as a strip a stage."""

_UNDECIDED = ("running", "failed")

MOST_COMPARED = 6
PAIRS = 8
"""Pictures that a point shows of each kind before they are unfolded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How the cells' table is asked for.

    Attributes:
        where: condition over the columns, in the language of `sweepctl results --where`.
        sort: columns to sort by, a minus before one for descending.
        page: from 1.
        show: name of the figure; empty for the first.
        chosen: axis -> value that must be met, as text.
    """

    where: str = ""
    sort: str = ""
    page: int = 1
    show: str = ""
    chosen: Mapping[str, str] | None = None


def render(template: str, **values: Any) -> str:
    """Fill a template."""
    return environment().get_template(template).render(**values)


def studies(reader: Reader, root: str) -> str:
    """The first page."""
    return render("studies.html", root=root, live=studies_live(reader, root), where=reader.shown)


def studies_live(reader: Reader, root: str) -> str:
    """Every study with its progress."""
    return render("_studies.html", root=root, cards=reader.studies(), states=STATES)


def study(reader: Reader, root: str, name: str, asking: Asking) -> str:
    """A study: figure, claims, grid, cells."""
    submission = reader.submission(name)
    standing = reader.standing(name)
    table = reader.table(name, standing=standing)
    axes = axes_of(standing)
    return render(
        "study.html",
        root=root,
        submission=submission,
        axes={name: values for name, values in axes.items() if 1 < len(values) <= 24},
        asking=asking,
        chosen=asking.chosen or {},
        columns=table.columns,
        live=study_live(reader, root, name, asking),
    )


def axes_of(standing: Standing) -> dict[str, list[Any]]:
    """The axes of a study with the values they take, in order."""
    found: dict[str, list[Any]] = {}
    for cell in standing.cells:
        for axis, value in cell.axes.items():
            values = found.setdefault(axis, [])
            if value not in values:
                values.append(value)
    return found


def study_live(reader: Reader, root: str, name: str, asking: Asking) -> str:
    """What of a study changes while it runs."""
    standing = reader.standing(name)
    table = reader.table(name, standing=standing)
    analysis, why = reader.analysis(name, standing=standing)
    complaint = ""
    try:
        found = reader.narrowed(table, asking.where, asking.sort, asking.chosen or {})
    except UsageError as error:
        complaint = str(error)
        found = Table(columns=table.columns, rows=())
    pages = max(1, math.ceil(len(found.rows) / ROWS))
    page = min(max(1, asking.page), pages)
    columns = reader.shown_columns(standing, table)
    return render(
        "_study.html",
        root=root,
        study=name,
        standing=standing,
        choices=choices(reader.metrics(table), table.columns, analysis),
        squares=len(standing.cells) <= SQUARES,
        analysis=analysis,
        why=why,
        columns=columns,
        numeric=numeric_columns(found, columns),
        best=best_of(table, reader.metrics(table)),
        rows=_rows(found, columns, standing, page),
        found=len(found.rows),
        of=len(table.rows),
        page=page,
        pages=pages,
        asking=asking,
        complaint=complaint,
        states=STATES,
    )


def _rows(
    found: Table, columns: Sequence[str], standing: Standing, page: int
) -> list[dict[str, Any]]:
    places = [found.columns.index(name) for name in columns]
    cell = found.columns.index("cell")
    shown = found.rows[(page - 1) * ROWS : page * ROWS]
    squares = standing.of_cells({row[cell] for row in shown})
    return [
        {
            "cell": row[cell],
            "values": [row[place] for place in places],
            "squares": squares.get(row[cell], []),
        }
        for row in shown
    ]


def numeric_columns(table: Table, columns: Sequence[str]) -> dict[str, bool]:
    """Which columns hold numbers, to be set flush right."""
    found = {}
    for name in columns:
        place = table.columns.index(name)
        found[name] = all(
            row[place] is None or (isinstance(row[place], int | float)) for row in table.rows[:ROWS]
        )
    return found


def best_of(table: Table, metrics: Sequence[str]) -> dict[str, float]:
    """The best value of each metric."""
    best = {}
    for name in metrics:
        place = table.columns.index(name)
        values = [row[place] for row in table.rows if row[place] is not None]
        if len(values) > 1:
            best[name] = (min if better(name) == "lower" else max)(values)
    return best


def figure(reader: Reader, name: str, show: str) -> dict[str, Any]:
    """The figure of a study that a link names, or the first one.

    Raises:
        UsageError: there is no such study or figure.
    """
    from sweepctl.figures import plotly

    table = reader.table(name)
    analysis, _ = reader.analysis(name)
    offered = choices(reader.metrics(table), table.columns, analysis)
    if not offered:
        return {"data": [], "layout": {}}
    chosen = next((one for one in offered if one.name == show), None)
    if chosen is None:
        # A law that is being fitted has no figure yet, its metric has.
        if show and show != ALL_LAWS.name and not show.startswith(("fit:", "metric:")):
            raise UsageError(f"there is no figure {show!r}")
        chosen = offered[0]
    standing = reader.standing(name)
    resolutions = {cell.values["resolution"] for cell in standing.cells}
    made = drawn(
        chosen,
        table,
        list(axes_of(standing)),
        analysis,
        resolution=resolutions.pop() if len(resolutions) == 1 else None,
    )
    return plotly(made, f"{chosen.name}|{chosen.x}")


def point(reader: Reader, root: str, name: str, cell: int, other: int | None) -> str:
    """One cell of a study."""
    return render(
        "point.html",
        root=root,
        study=name,
        cell=cell,
        other=other,
        standing=reader.standing(name),
        live=point_live(reader, root, name, cell, other),
    )


def point_live(reader: Reader, root: str, name: str, cell: int, other: int | None) -> str:
    """What of a cell changes while it runs."""
    found = reader.point(name, cell, other)
    return render(
        "_point.html",
        root=root,
        point=found,
        submission=found.view.submission,
        pictures=_pictures(found),
        shown=PAIRS,
        checkpoints=checkpoints(found),
        logs=_logs(found),
    )


def _logs(found: PointPage) -> list[tuple[str, TaskPage]]:
    """The logs worth reading: of what runs or has failed, else of the last thing that ran."""
    told = [(stage, task) for stage, task in found.tasks if task.log]
    live = [(stage, task) for stage, task in told if task.view.record.state.state in _UNDECIDED]
    return live or told[-1:]


def _pictures(found: PointPage) -> list[tuple[str, TaskPage]]:
    return [(stage, task) for stage, task in found.tasks if task.pictures]


def checkpoints(found: PointPage) -> list[tuple[str, int]]:
    """(path, bytes) of the weights that a cell's trainings left, in order."""
    return [
        (path, size)
        for _, task in found.tasks
        for path, size in task.files
        if path.endswith(".safetensors")
    ]


def task(reader: Reader, root: str, name: str) -> str:
    """One task, shared by cells or not."""
    return render("task.html", root=root, task=name, live=task_live(reader, root, name))


def task_live(reader: Reader, root: str, name: str) -> str:
    """What of a task changes while it runs."""
    return render("_task.html", root=root, task=reader.task(name), shown=PAIRS)


def task_curve(reader: Reader, name: str, measure: str) -> dict[str, Any]:
    """One curve of a task; UsageError when it has none of that name."""
    page = reader.task(name)
    for curve in page.curves:
        if curve.name == measure:
            return _curves([(page.view.record.state.label, curve)], measure)
    raise UsageError(f"{name} has no curve {measure!r}")


def compare(reader: Reader, root: str, name: str, cells: Sequence[int]) -> str:
    """Two to six points beside each other.

    Raises:
        UsageError: fewer than two or more than six were asked for, or one is not there.
    """
    cells = list(dict.fromkeys(cells))
    if not 2 <= len(cells) <= MOST_COMPARED:
        raise UsageError(f"two to {MOST_COMPARED} cells can be compared; {len(cells)} were named")
    points = [reader.point(name, cell) for cell in cells]
    metrics = list(
        dict.fromkeys(
            (metric.name, metric.dataset, metric.protocol)
            for one in points
            for metric in one.view.metrics
        )
    )
    return render(
        "compare.html",
        root=root,
        study=name,
        points=points,
        metrics=metrics,
        values=[
            {(one.name, one.dataset, one.protocol): one for one in point.view.metrics}
            for point in points
        ],
        settings=_settings(points),
        pictures=[_reconstruction(one) for one in points],
        measures=[
            measure
            for measure in ("loss",)
            if any(
                curve.name == measure for one in points for _, t in one.tasks for curve in t.curves
            )
        ],
    )


def _settings(points: Sequence[PointPage]) -> dict[str, list[Any]]:
    """Axes and values in which the points differ, and those that say how large they are."""
    names = [*points[0].view.cell.axes, "E", "tokens", "compression", "parameters", "macs"]
    rows = {}
    for name in dict.fromkeys(names):
        cells = [one.view.cell for one in points]
        values = [one.axes.get(name, one.values.get(name)) for one in cells]
        if any(value != values[0] for value in values) or name == "E":
            rows[name] = values
    return rows


def _reconstruction(found: PointPage) -> TaskPage | None:
    for _, one in found.tasks:
        if one.pictures.get("reconstruction"):
            return one
    return None


def compare_curve(reader: Reader, name: str, cells: Sequence[int], measure: str) -> Any:
    """One measure of the trainings of several cells, a line each."""
    lines = []
    first, *_ = trainings()
    for cell in list(dict.fromkeys(cells))[:MOST_COMPARED]:
        found = reader.point(name, cell)
        settings = ", ".join(f"{key} {value}" for key, value in found.view.cell.axes.items())
        for stage, one in found.tasks:
            lines += [
                (f"cell {cell}: {settings}" + ("" if stage == first else f" ({stage})"), curve)
                for curve in one.curves
                if curve.name == measure
            ]
    return _curves(lines, measure)


def _curves(lines: Sequence[tuple[str, Curve]], measure: str) -> dict[str, Any]:
    from sweepctl.figures import curves, plotly

    return plotly(curves([(name, one.steps, one.values) for name, one in lines], measure), measure)


def fits(reader: Reader, root: str, name: str) -> str:
    """The laws of a study and what speaks against them."""
    table = reader.table(name)
    return render(
        "fits.html",
        root=root,
        study=name,
        metrics=reader.metrics(table),
        costs=costs(table),
        live=fits_live(reader, root, name),
    )


def fits_live(reader: Reader, root: str, name: str) -> str:
    """The part of the laws' page that changes when more cells are done."""
    from sweepctl.analyse import equation

    analysis, why = reader.analysis(name)
    return render(
        "_fits.html",
        root=root,
        study=name,
        analysis=analysis,
        why=why,
        equations={fit.name: equation(fit) for fit in analysis.fits} if analysis else {},
        scores=reader.scores(analysis) if analysis else {},
    )


def costs(table: Table) -> list[str]:
    """Columns that a Pareto front can have as its cost."""
    wanted = ("macs", "parameters", "E", "tokens", "decoder_macs", "encoder_macs")
    return [name for name in wanted if name in table.columns]


def fit_figure(reader: Reader, name: str, fit: str, kind: str) -> dict[str, Any]:
    """A figure of the laws' page.

    Raises:
        UsageError: there is no such law.
    """
    analysis, _ = reader.analysis(name)
    found = next((one for one in analysis.fits if one.name == fit), None) if analysis else None
    if found is None or kind != "residuals":
        raise UsageError(f"the study {name!r} has no law {fit!r}")
    from sweepctl.figures import plotly, residuals

    try:
        made = residuals([found])
    except UsageError:  # a law through all its points leaves nothing over
        return {"data": [], "layout": {}}
    return plotly(made, f"residuals {fit}")


def pareto(reader: Reader, name: str, metric: str, cost: str) -> dict[str, Any]:
    """A metric over its cost; UsageError when there is no such column."""
    table = reader.table(name)
    if metric not in reader.metrics(table) or cost not in costs(table):
        raise UsageError(f"there is no {metric!r} over {cost!r}")
    from sweepctl.figures import pareto as front
    from sweepctl.figures import plotly

    axes = list(axes_of(reader.standing(name)))
    made = front(rows_of(table, metric, cost), axes, metric, cost, better=better(metric))
    return plotly(made, f"pareto {metric} {cost}")


def cluster(reader: Reader, root: str) -> str:
    """What runs where."""
    return render("cluster.html", root=root, live=cluster_live(reader, root))


def cluster_live(reader: Reader, root: str) -> str:
    """The part of the machines' page that changes."""
    found = reader.cluster()
    hosts: dict[str, int] = {}
    for place in found.running:
        hosts[place.host or "not told yet"] = hosts.get(place.host or "not told yet", 0) + 1
    return render("_cluster.html", root=root, cluster=found, hosts=hosts)


def problem(root: str, status: int, message: str) -> str:
    """A page that says what went wrong."""
    return render("problem.html", root=root, status=status, message=message)


__all__ = ["Asking", "render", "span"]
