"""How is a study shown to people who have nothing but a file? One page, or what a paper takes.

`write_report` fills a template with the same figures, verdicts and numbers as the pages: scripts,
styles, data and thumbnails are inside, so that the file opens with the network off and asks for
nothing. Its policy allows exactly the scripts that are in it, by their hashes. For papers the laws
come as PDF, PNG or SVG drawn by matplotlib, and the tables as Markdown; each says n, protocol,
interval and the command that made it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import UsageError
from sweepctl.ledger import Ledger, Submitted, Table
from sweepctl.runs import write_chosen
from sweepctl.ui import _folders
from sweepctl.ui._pages import axes_of, best_of, checkpoints, numeric_columns
from sweepctl.ui._plots import ALL_LAWS, choices, drawn
from sweepctl.ui._reading import Reader
from sweepctl.ui._records import PointPage
from sweepctl.ui._words import environment, plain_json, static_bytes

if TYPE_CHECKING:
    from sweepctl.analyse import FitResult
    from sweepctl.claims import Analysis

FORMATS = ("html", "pdf", "png", "svg", "md")
"""What a report can be."""

PICTURED = 12
"""Most cells whose reconstructions are shown; of more, those evenly spread over E."""

PICTURES = 10
"""Most pictures a cell shows."""


def write_report(
    ledger: Ledger, runs: Path, study: str, out: Path, *, form: str = "html", command: str = ""
) -> tuple[Path, ...]:
    """Write a study's report.

    Args:
        ledger: an open ledger.
        runs: the run folder, for pictures and curves.
        study: name of the study.
        out: the file to write.
        form: one of `FORMATS`; figures for papers get a text file with their caption beside them.
        command: what makes this file again, for the captions.

    Returns:
        The files that were written.

    Raises:
        UsageError: there is no such study, nothing to draw, no such format, or `out` cannot be
            written.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", hint=", ".join(FORMATS))
    reader = Reader(ledger, runs)
    if form == "html":
        return _written({out: html_report(reader, study, command=command).encode()})
    if form == "md":
        return _written({out: markdown_report(reader, study, command=command).encode()})
    return _drawn(reader, study, out, form, command)


def _written(files: Mapping[Path, bytes]) -> tuple[Path, ...]:
    for path, data in files.items():
        write_chosen(path, data)
    return tuple(files)


def _drawn(reader: Reader, study: str, out: Path, form: str, command: str) -> tuple[Path, ...]:
    from sweepctl.figures import laws, write

    analysis, why = reader.analysis(study, wait=True)
    if analysis is None or not analysis.fits:
        raise UsageError(
            f"{study} has no law to draw: {why or 'it declares no fits'}",
            hint="sweepctl report STUDY -o FILE.html shows its points without a law",
        )
    files = write(laws(analysis.fits, title=study), out.with_suffix(""), (form,))
    said = "\n\n".join(caption(fit, command) for fit in analysis.fits) + "\n"
    return (*files, *_written({out.with_suffix(".caption.txt"): said.encode()}))


def caption(fit: FitResult, command: str) -> str:
    """What has to stand under a figure or a table of a law."""
    if not fit.fitted:
        return f"{fit.name}: no law was fitted: {fit.reason}."
    low, high = fit.seeds
    seeds = f"{low}" if low == high else f"{low} to {high}"
    text = (
        f"{fit.name}: {fit.metric} on {fit.on} (protocol {fit.protocol or 'unknown'}"
        f"{f', {fit.n_samples:,} samples a value' if fit.n_samples else ''}) over {fit.x}; "
        f"n = {fit.n} configurations, {seeds} seed{'s' if high > 1 else ''} each; {fit.form} law, "
        f"{fit.meaning}. Dark band: 95 % interval of the law; light band: 95 % interval of a new "
        "configuration."
    )
    if fit.warnings:
        text += f" Warnings: {', '.join(sorted({one.code for one in fit.warnings}))}."
    return f"{text} Made by: {command}" if command else text


# --- one file ---------------------------------------------------------------------------------


def html_report(reader: Reader, study: str, *, command: str = "") -> str:
    """The report as one HTML page that needs nothing else.

    Raises:
        UsageError: there is no such study.
    """
    from sweepctl.analyse import equation
    from sweepctl.figures import plotly

    submission = reader.submission(study)
    table = reader.table(study, wait=True)
    analysis, why = reader.analysis(study, wait=True)
    standing = reader.standing(study)
    axes = axes_of(standing)
    sides = {cell.values["resolution"] for cell in standing.cells}
    side = sides.pop() if len(sides) == 1 else None
    metrics = reader.metrics(table)
    figures = [
        (
            choice,
            plotly(drawn(choice, table, list(axes), analysis, resolution=side), choice.name),
        )
        for choice in choices(metrics, table.columns, analysis)
        if choice != ALL_LAWS  # each of them has a section
    ]
    columns = reader.shown_columns(reader.standing(study), table)
    chosen = [reader.point(study, cell) for cell in pictured(table)]
    scripts = [static_bytes(name).decode() for name in ("plotly-cartesian.min.js", "app.js")]
    return (
        environment()
        .get_template("report.html")
        .render(
            policy=_policy(scripts),
            style=static_bytes("look.css").decode(),
            scripts=scripts,
            submission=submission,
            standing=standing,
            analysis=analysis,
            why=why,
            equations={fit.name: equation(fit) for fit in analysis.fits} if analysis else {},
            captions={fit.name: caption(fit, command) for fit in analysis.fits} if analysis else {},
            figures=[(choice, plain_json(figure)) for choice, figure in figures],
            columns=columns,
            numeric=numeric_columns(table, columns),
            best=best_of(table, metrics),
            rows=[
                [row[table.columns.index(name)] for name in columns] for row in _by_e(table).rows
            ],
            pictures=[row for point in chosen if (row := _pictures(reader, point))],
            originals=_originals(reader, chosen),
            provenance=_provenance(chosen),
            command=command,
        )
    )


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _by_e(table: Table) -> Table:
    if "E" not in table.columns:
        return table
    e, cell = table.columns.index("E"), table.columns.index("cell")
    return Table(
        columns=table.columns, rows=tuple(sorted(table.rows, key=lambda row: (row[e], row[cell])))
    )


def pictured(table: Table) -> list[int]:
    """The cells whose pictures are shown, ordered by E."""
    cell, state = table.columns.index("cell"), table.columns.index("state")
    done = [row[cell] for row in _by_e(table).rows if row[state] == "done"]
    if len(done) <= PICTURED:
        return done
    return [done[round(place * (len(done) - 1) / (PICTURED - 1))] for place in range(PICTURED)]


def _thumbnails(reader: Reader, task: str, kind: str) -> list[str]:
    folder = _folders.task_folder(reader.runs, task)
    if folder is None:
        return []
    made = []
    for index in range(min(PICTURES, _folders.count(folder, kind))):
        data = _folders.picture(folder, kind, index, thumbnail=True)
        if data is not None:
            text = base64.b64encode(data).decode()
            made.append(f"data:{_folders.media_type(data)};base64,{text}")
    return made


def _task_with(point: PointPage, kind: str) -> str:
    for _, task in point.tasks:
        if task.pictures.get(kind):
            return task.view.record.state.id
    return ""


def _pictures(reader: Reader, point: PointPage) -> dict[str, Any] | None:
    for kind in ("reconstruction", "sample"):
        task = _task_with(point, kind)
        if task and (images := _thumbnails(reader, task, kind)):
            return {"point": point, "kind": kind, "images": images}
    return None


def _originals(reader: Reader, points: Sequence[PointPage]) -> list[str]:
    for point in points:
        if task := _task_with(point, "original"):
            return _thumbnails(reader, task, "original")
    return []


def _provenance(points: Sequence[PointPage]) -> dict[str, list[str]]:
    """Where the numbers come from, over all shown cells: hosts, devices, versions, checkpoints."""
    found: dict[str, set[str]] = {}
    for point in points:
        for _, task in point.tasks:
            for attempt in task.view.attempts[-1:]:
                facts = {**attempt.provenance, "host": attempt.host, "device": attempt.device}
                for name in ("host", "device", "device_name", "python", "torch", "commit", "code"):
                    if facts.get(name):
                        found.setdefault(name.replace("_", " "), set()).add(str(facts[name]))
    made = {name: sorted(values) for name, values in found.items()}
    paths = [path for point in points for path, _ in checkpoints(point)]
    if paths:
        made["checkpoints"] = paths
    return made


# --- Markdown ---------------------------------------------------------------------------------


def markdown_report(reader: Reader, study: str, *, command: str = "") -> str:
    """Question, verdicts, laws and results as Markdown tables.

    Raises:
        UsageError: there is no such study.
    """
    submission = reader.submission(study)
    table = _by_e(reader.table(study, wait=True))
    analysis, why = reader.analysis(study, wait=True)
    columns = reader.shown_columns(reader.standing(study), table)
    places = [table.columns.index(name) for name in columns]
    parts = [
        f"# {_md(study)}",
        *(_md(said) for said in (submission.question, submission.about_overlap) if said),
    ]
    if analysis is None:
        parts.append(_md(why))
    else:
        parts += _laws(analysis, command)
    parts += [
        "## Results",
        _md_table(columns, [[row[place] for place in places] for row in table.rows]),
        _md(_origin(reader, study, submission, table, command)),
    ]
    return "\n\n".join(parts) + "\n"


def _laws(analysis: Analysis, command: str) -> list[str]:
    parts = []
    if analysis.claims:
        rows = [(claim.name, claim.verdict, claim.evidence) for claim in analysis.claims]
        parts += ["## Claims", _md_table(("claim", "verdict", "evidence"), rows)]
    rows_of_laws: list[tuple[object, ...]] = []
    for fit in analysis.fits:
        low, high = fit.slope_interval() if fit.slope else (None, None)
        slope = fit.slope.estimate if fit.slope else None
        rows_of_laws.append(
            (fit.name, fit.metric, fit.on, fit.protocol, fit.n, slope, low, high, fit.r2)
        )
    if rows_of_laws:
        head = ("law", "metric", "data", "protocol", "n", "slope", "95 % low", "95 % high", "R2")
        parts += ["## Laws", _md_table(head, rows_of_laws)]
        parts += [_md(caption(fit, command)) for fit in analysis.fits]
    return parts


def _origin(reader: Reader, study: str, submission: Submitted, table: Table, command: str) -> str:
    counts: dict[str, set[str]] = {}
    for metric in reader.finals(study):
        counts.setdefault(f"{metric.dataset}, protocol {metric.protocol}", set()).add(
            f"{metric.n:,}"
        )
    said = "; ".join(f"{name}, n = {', '.join(sorted(ns))}" for name, ns in counts.items())
    when = f"{submission.created_at:%Y-%m-%d}"
    text = f"{len(table.rows)} cells, submitted {when}. Measured on {said or 'nothing yet'}."
    return f"{text} Made by: {command}" if command else text


def _md(text: str) -> str:
    """A text as Markdown that shows it and means nothing else."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
    return " ".join(escaped.split())


def _md_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    from sweepctl.ui._words import brief

    numeric = [
        all(row[place] is None or isinstance(row[place], int | float) for row in rows)
        for place in range(len(head))
    ]
    lines = [
        "| " + " | ".join(map(_md, head)) + " |",
        "| " + " | ".join("---:" if right else "---" for right in numeric) + " |",
    ]
    lines += ["| " + " | ".join(_md(brief(value)) for value in row) + " |" for row in rows]
    return "\n".join(lines)
