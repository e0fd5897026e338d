"""Which law do the rows of a table follow? A fit without a study.

Every column but y is a setting, so rows that agree in all of them are measurements of one
configuration and are averaged, as seeds are; a column named `seed` is never a setting. Columns that
bear the name of another metric are left out, because a measured value is no setting. A column named
`se` is the standard error of y. What a study calls cells are here the rows of the table, from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweepctl.analyse._laws import fit_law, refitted
from sweepctl.analyse._points import is_reserved
from sweepctl.analyse._results import FitResult, FitWarning
from sweepctl.analyse._scales import is_metric
from sweepctl.analyse._validation import with_outliers
from sweepctl.errors import UsageError
from sweepctl.study import Fit


def fit_table(
    columns: Mapping[str, Sequence[Any]],
    fit: Fit,
    *,
    weight: str | None = None,
    numbers: Sequence[int] | None = None,
) -> FitResult:
    """Fit a law to the columns of a table.

    Args:
        columns: values by the name of the column, all of one length; y and the variables are
            numbers (not-a-number and infinity are refused by a warning, not by an error).
        fit: the law: `metric` is the column y, `on` says what the table is called, `x` and
            `factors` name columns.
        weight: column with the weight of each row, inverse to its variance up to a factor; then
            every row is a configuration of its own.
        numbers: what the rows are called in warnings; from 1 when None.

    Raises:
        UsageError: the fit names a column that is not there, or that holds no numbers; a weight is
            not positive, or goes with rows that are measurements of one configuration.
    """
    import pandas as pd

    kept = {
        name: values
        for name, values in columns.items()
        if name not in (fit.metric, weight)
        and (name in (*fit.xs, *fit.factors) or not is_metric(name))
    }
    rows = list(numbers or range(1, len(columns[fit.metric]) + 1))
    frame = pd.DataFrame(
        {
            "cell": rows,
            "task": [f"row {row}" for row in rows],
            "metric": fit.metric,
            "dataset": fit.on,
            "protocol": "",
            "n": None,
            "value": list(columns[fit.metric]),
            # A column may be called as one of ours; its longer name is found by the short one.
            **{
                _named(name, fit): pd.Series(values, dtype="object")
                for name, values in kept.items()
            },
        }
    )
    if "seed" not in frame.columns:
        frame["seed"] = 0
    result = fit_law("law", frame, fit)
    if weight is not None:
        stated = dict(zip(rows, map(float, columns[weight]), strict=True))
        result = _with_weights(result, stated, weight)
    result = with_outliers(result)
    return replace(
        result,
        meaning=_of_rows(result.meaning),
        warnings=tuple(
            FitWarning(code=warning.code, message=_of_rows(warning.message))
            for warning in result.warnings
        ),
    )


def _with_weights(result: FitResult, weights: Mapping[int, float], column: str) -> FitResult:
    """The law again, with weights that are stated instead of estimated."""
    if any(not 0 < weight < math.inf for weight in weights.values()):
        raise UsageError(f"the weights in column {column!r} must be positive and finite")
    if any(len(point.cells) > 1 or point.seeds > 1 for point in result.points):
        raise UsageError(
            f"column {column!r} weights rows, but some rows are measurements of one configuration",
            hint="give one row a configuration, or leave the weights to the seeds",
        )
    mean = sum(weights.values()) / len(weights)
    again = refitted(
        replace(result, weighting=f"column {column}"),
        [replace(point, weight=weights[point.cells[0]] / mean) for point in result.points],
    )
    about_rows = [w for w in result.warnings if w.code in ("seeds_as_rows", "duplicate_rows")]
    return replace(again, warnings=(*about_rows, *again.warnings)) if again.fitted else again


def _named(name: str, fit: Fit) -> str:
    if name == "se" and name not in (*fit.xs, *fit.factors):
        return name
    return f"column.{name}" if is_reserved(name) else name


def _of_rows(text: str) -> str:
    return re.sub(r"\bcell(s?) (?=\d)", r"row\1 ", text)
