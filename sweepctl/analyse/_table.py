"""Which law do the rows of a table follow? A fit without a study.

Every column but y is a setting, so rows that agree in all of them are measurements of one
configuration and are averaged, as seeds are; a column named `seed` is never a setting. Columns that
bear the name of another metric are left out, because a measured value is no setting. A column named
`se` is the standard error of y. What a study calls cells are here the rows of the table, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweepctl.analyse._laws import fit_law
from sweepctl.analyse._points import is_reserved
from sweepctl.analyse._results import FitResult, FitWarning
from sweepctl.analyse._scales import is_metric
from sweepctl.study import Fit


def fit_table(columns: Mapping[str, Sequence[Any]], fit: Fit) -> FitResult:
    """Fit a law to the columns of a table.

    Args:
        columns: values by the name of the column, all of one length; y and the variables are
            numbers (not-a-number and infinity are refused by a warning, not by an error).
        fit: the law: `metric` is the column y, `on` says what the table is called, `x` and
            `factors` name columns.

    Raises:
        UsageError: the fit names a column that is not there, or that holds no numbers.
    """
    import pandas as pd

    kept = {
        name: values
        for name, values in columns.items()
        if name != fit.metric and (name in (*fit.xs, *fit.factors) or not is_metric(name))
    }
    rows = len(columns[fit.metric])
    frame = pd.DataFrame(
        {
            "cell": range(1, rows + 1),
            "task": [f"row {row}" for row in range(1, rows + 1)],
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
    return replace(
        result,
        meaning=_of_rows(result.meaning),
        warnings=tuple(
            FitWarning(code=warning.code, message=_of_rows(warning.message))
            for warning in result.warnings
        ),
    )


def _named(name: str, fit: Fit) -> str:
    if name == "se" and name not in (*fit.xs, *fit.factors):
        return name
    return f"column.{name}" if is_reserved(name) else name


def _of_rows(text: str) -> str:
    return re.sub(r"\bcell(s?) (?=\d)", r"row\1 ", text)
