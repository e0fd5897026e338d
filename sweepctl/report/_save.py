"""Fits kept as files: a folder per law with the question, the outcome and how to repeat it.

    fits/<id>/summary.txt        the law and the verdicts, as the terminal shows them
    fits/<id>/fit.yaml           what was asked, of which data, and the command that repeats it
    fits/<id>/fit.json           the law: strict JSON, null for what is not a finite number
    fits/<id>/claims.json        the study's verdicts at that time
    fits/<id>/points.csv         its configurations: settings, x, y, weight, fitted, leverage, Cook
    fits/<id>/predictions.csv    the law on a grid of x, with both bands
    fits/<id>/draws.npz          10,000 wild bootstrap draws, where the law allows them
    fits/<id>/figures            the law, its residuals, its hold-out, its optimum

The id is the name of the study, that of the fit, and a hash of question, points and answer: asking
the same of the same data gives the same folder with the same bytes (nothing in it holds a date),
and new data never overwrite an old answer. `sweepctl fit-table points.csv` with the options in
fit.yaml gives the same law again, without study and database.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweepctl import __version__
from sweepctl.analyse import FitResult, bands, bootstrap
from sweepctl.claims import Analysis
from sweepctl.errors import UsageError
from sweepctl.figures import Figure, hold_outs, laws, optima, residuals, write
from sweepctl.paper import PaperComparison
from sweepctl.report._text import claims_text, fits_text

SCHEMA = 2
"""Version of the JSON files."""

_GRID = 101
_OF_FIT = ("fit_y", "low", "high", "fitted", "leverage", "cook", "noise", "seeds", "weight")
"""Columns of points.csv that are the fit's own: on its scale, except for seeds and weight."""


def save(
    analysis: Analysis,
    folder: Path,
    *,
    of: str,
    condition: str = "",
    comparisons: Sequence[PaperComparison] = (),
    formats: Sequence[str] = ("png", "svg"),
) -> dict[str, Path]:
    """Keep every fit of an analysis in a folder of its own.

    Args:
        analysis: what `fit_study` gave.
        folder: where the folders of the fits go.
        of: what was fitted: the name of a study, of a figure of the paper, of a table.
        condition: which cells; empty for all.
        comparisons: the paper's points, for the figures.
        formats: of the figures; none draws nothing.

    Returns:
        the folder of each fit by its name.

    Raises:
        UsageError: a folder cannot be written.
    """
    said = analysis.to_json()
    facts = {"schema": SCHEMA, "sweepctl": __version__, "of": of, "condition": condition}
    kept = {}
    try:
        for fit, plain in zip(analysis.fits, said["fits"], strict=True):
            points = _points(fit)
            text = json.dumps([facts, plain], sort_keys=True, allow_nan=False) + points
            digest = hashlib.sha256(text.encode()).hexdigest()[:10]
            home = folder / f"{_slug(of)}-{_slug(fit.name)}-{digest}"
            home.mkdir(parents=True, exist_ok=True)
            alone = Analysis(fits=(fit,), claims=analysis.claims)
            _write(home, alone, facts | plain, said["claims"], points, comparisons, formats)
            kept[fit.name] = home
    except OSError as error:
        raise UsageError(
            f"cannot write the fits into {folder}: {error.strerror}",
            hint="choose another folder with --save",
        ) from error
    return kept


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:60] or "law"


def _write(
    home: Path,
    alone: Analysis,
    plain: dict[str, Any],
    claims: Any,
    points: str,
    comparisons: Sequence[PaperComparison],
    formats: Sequence[str],
) -> None:
    fit = alone.fits[0]
    about = f"{plain['of']}" + (f" where {plain['condition']}" if plain["condition"] else "")
    summary = f"{about}\n\n{fits_text(alone, terminal=True)}"
    if alone.claims:
        summary += f"\n{claims_text(alone, terminal=True)}"
    (home / "summary.txt").write_text(summary, encoding="utf-8")
    (home / "fit.yaml").write_text(_asked(fit, plain, points), encoding="utf-8")
    _json(home / "fit.json", plain)
    facts = {name: plain[name] for name in ("schema", "sweepctl", "of", "condition")}
    _json(home / "claims.json", facts | {"claims": claims})
    (home / "points.csv").write_text(points, encoding="utf-8", newline="")
    if not fit.fitted:
        return  # fit.json says why
    (home / "predictions.csv").write_text(_predictions(fit), encoding="utf-8", newline="")
    _draws(fit, home / "draws.npz")
    if formats:
        _figures(alone, home / "figures", about, comparisons, formats)


def _figures(
    alone: Analysis,
    folder: Path,
    title: str,
    comparisons: Sequence[PaperComparison],
    formats: Sequence[str],
) -> None:
    own = [one for one in comparisons if one.fit == alone.fits[0].name]
    write(laws(alone.fits, title=title, comparisons=own), folder / "law", formats)
    more: Mapping[str, Callable[..., Figure]] = {
        "residuals": residuals,
        "holdout": hold_outs,
        "optimum": optima,
    }
    for name, builder in more.items():
        try:
            made = builder(alone.fits, title=title)
        except UsageError:
            continue  # a line has no optimum; a law through every point has no residuals
        write(made, folder / name, formats)


def _draws(fit: FitResult, file: Path) -> None:
    try:
        drawn = bootstrap(fit)
    except UsageError:
        return  # fit.json says it: a point of leverage 1 is among the warnings
    np.savez(
        file,
        names=np.asarray(drawn.names),
        values=drawn.values,
        slopes=drawn.slopes,
        seed=np.asarray(drawn.seed),
    )


def _json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------- what was asked


def _asked(fit: FitResult, plain: Mapping[str, Any], points: str) -> str:
    """fit.yaml: the question in the words of a study, and the command that asks it again."""
    law: dict[str, Any] = {
        "metric": fit.metric,
        "on": fit.on,
        "x": fit.xs[0] if len(fit.xs) == 1 else list(fit.xs),
        "form": fit.form,
    }
    stated = {
        "x_on": fit.x_on,
        "where": dict(fit.where),
        "factors": list(fit.factors),
        "interaction": fit.interaction,
        "scale": fit.scale if fit.law.y_scale is None else "",
        "loss": "" if fit.loss == "squares" else fit.loss,
    }
    law |= {name: value for name, value in stated.items() if value}
    lines = [
        "# What was asked, and of which numbers. JSON values are YAML, too.",
        f"of: {json.dumps(plain['of'])}",
        f"condition: {json.dumps(plain['condition'])}",
        f"protocol: {json.dumps(fit.protocol)}",
        f"n_samples: {json.dumps(fit.n_samples)}",
        f"sweepctl: {json.dumps(plain['sweepctl'])}",
        f"points_sha256: {hashlib.sha256(points.encode()).hexdigest()}",
        "fits:",
        f"  {json.dumps(fit.name)}: {json.dumps(law, default=str)}",
    ]
    if fit.points:
        lines += ["# Gives the same law again, from this folder:"]
        lines += [f"again: {json.dumps(shlex.join(again(fit)))}"]
    return "\n".join(lines) + "\n"


def again(fit: FitResult) -> list[str]:
    """The command that fits points.csv as the fit was made."""
    words = ["sweepctl", "fit-table", "points.csv", "--y", fit.metric, "--form", fit.form]
    for x in fit.xs:
        words += ["--x", x]
    for factor in fit.factors:
        words += ["--factor", factor]
    if fit.interaction:
        words.append("--interaction")
    if fit.law.y_scale is None:
        words += ["--scale", fit.scale]
    if fit.loss != "squares":
        words += ["--loss", fit.loss]
    return [*words, "--weight", _names(fit)["weight"]]


def _names(fit: FitResult) -> dict[str, str]:
    """How the fit's own columns are called next to the settings."""
    taken = {name for point in fit.points for name in point.settings} | {fit.metric, *fit.xs}
    return {name: f"fit_{name}" if name in taken else name for name in ("cells", *_OF_FIT)}


def _points(fit: FitResult) -> str:
    """points.csv: settings, variables, the metric in its unit, and what the fit makes of them."""
    settings = list(dict.fromkeys(name for point in fit.points for name in point.settings))
    settings = [name for name in settings if name != fit.metric]
    others = [x for x in fit.xs if _column(settings, x) is None]
    names = _names(fit)
    rows = []
    for point in fit.points:
        own = [point.y if name == "fit_y" else getattr(point, name) for name in _OF_FIT]
        xs = dict(zip(fit.xs, point.xs, strict=True))
        value = float(np.exp2(point.y)) if fit.scale == "log2" else point.y
        rows.append(
            [
                " ".join(map(str, point.cells)),
                *(point.settings.get(name) for name in settings),
                *(xs[x] for x in others),
                value,
                *own,
            ]
        )
    header = [names["cells"], *settings, *others, fit.metric, *(names[name] for name in _OF_FIT)]
    return _csv(header, rows)


def _column(settings: Sequence[str], x: str) -> str | None:
    return x if x in settings else None


def _predictions(fit: FitResult) -> str:
    low, high = fit.points[0].x, fit.points[-1].x
    if fit.x_scale == "log2":
        grid = np.geomspace(low / 2, high * 2, _GRID)
    else:
        grid = np.linspace(low, high, _GRID)
    found = bands(fit, grid)
    columns = ("mean", "mean_low", "mean_high", "low", "high", "outside")
    rows = zip(grid.tolist(), *(getattr(found, name).tolist() for name in columns), strict=True)
    return _csv([fit.x, *columns], rows)


def _csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        ["" if value is None or value != value else value for value in row] for row in rows
    )
    return written.getvalue()
