"""How are fits kept as files? A folder a fit: numbers with all digits, points, predictions, draws.

    FOLDER/summary.txt              every law and verdict, as the terminal shows them
    FOLDER/claims.json              the verdicts
    FOLDER/<fit>/fit.json           the law: strict JSON, null for what is not a finite number
    FOLDER/<fit>/points.csv         its configurations: settings, x, y, fitted, leverage, Cook
    FOLDER/<fit>/predictions.csv    the law on a grid of x, with both bands
    FOLDER/<fit>/draws.npz          10,000 wild bootstrap draws, where the law allows them

The same analysis gives the same bytes: nothing here holds a date.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweepctl import __version__
from sweepctl.analyse import Analysis, FitResult, bands, bootstrap
from sweepctl.errors import UsageError
from sweepctl.report._text import claims_text, fits_text

SCHEMA = 1
"""Version of the JSON files."""

_GRID = 101


def save(analysis: Analysis, folder: Path) -> tuple[Path, ...]:
    """Write every fit of an analysis into a folder; files of an earlier save are replaced.

    Returns:
        the written files.

    Raises:
        UsageError: the folder cannot be written.
    """
    said = analysis.to_json()
    facts = {"schema": SCHEMA, "sweepctl": __version__}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = fits_text(analysis, terminal=True) + "\n" + claims_text(analysis, terminal=True)
        (folder / "summary.txt").write_text(text, encoding="utf-8")
        files = [folder / "summary.txt"]
        files.append(_json(folder / "claims.json", facts | {"claims": said["claims"]}))
        for fit, plain in zip(analysis.fits, said["fits"], strict=True):
            files += _save_fit(fit, facts | plain, folder / fit.name)
    except OSError as error:
        raise UsageError(
            f"cannot write the fits into {folder}: {error.strerror}",
            hint="choose another folder with --save",
        ) from error
    return tuple(files)


def _save_fit(fit: FitResult, plain: dict[str, Any], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [_json(folder / "fit.json", plain), _points(fit, folder / "points.csv")]
    stale = [folder / name for name in ("predictions.csv", "draws.npz")]
    for file in stale:
        file.unlink(missing_ok=True)
    if not fit.fitted:
        return files
    files.append(_predictions(fit, folder / "predictions.csv"))
    try:
        drawn = bootstrap(fit)
    except UsageError:
        # fit.json says it: a point of leverage 1 is among the warnings.
        return files
    file = folder / "draws.npz"
    np.savez(
        file,
        names=np.asarray(drawn.names),
        values=drawn.values,
        slopes=drawn.slopes,
        seed=np.asarray(drawn.seed),
    )
    return [*files, file]


def _json(file: Path, value: dict[str, Any]) -> Path:
    file.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return file


def _points(fit: FitResult, file: Path) -> Path:
    settings = list(dict.fromkeys(name for point in fit.points for name in point.settings))
    numbers = ("seeds", "y", "low", "high", "fitted", "leverage", "cook", "weight", "noise")
    names = [*settings, "cells", *(f"x {x}" for x in fit.xs), *numbers]
    rows = (
        [
            *(point.settings.get(name) for name in settings),
            " ".join(map(str, point.cells)),
            *point.xs,
            *(getattr(point, name) for name in numbers),
        ]
        for point in fit.points
    )
    return _csv(file, names, rows)


def _predictions(fit: FitResult, file: Path) -> Path:
    low, high = fit.points[0].x, fit.points[-1].x
    if fit.x_scale == "log2":
        grid = np.geomspace(low / 2, high * 2, _GRID)
    else:
        grid = np.linspace(low, high, _GRID)
    found = bands(fit, grid)
    columns = ("mean", "mean_low", "mean_high", "low", "high", "outside")
    rows = zip(grid.tolist(), *(getattr(found, name).tolist() for name in columns), strict=True)
    return _csv(file, [fit.x, *columns], rows)


def _csv(file: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(["" if value is None else value for value in row] for row in rows)
    return file
