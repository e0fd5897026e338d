"""Which law do the rows of a table follow? A fit without a study.

Rows that agree in all settings are measurements of one configuration and are averaged, as seeds
are. Which columns are settings, `_roles` decides: the variables and factors of the law always are;
columns that number runs by their name (`seed`, `rng_seed`, `run_id`, `trial`), that say when or
where a row was made, that hold another measured value, or whose value is different on every row
while the variables repeat, are not. What is left out is said, and so is every column that alone
makes several configurations of one: counted as points, repeats make every interval too narrow.

A column `se` is the standard error of y; values of more than one `protocol`, `dataset`, `metric` or
`n` cannot share a fit. What a study calls cells are here the rows of the table, from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from sweepctl.analyse._laws import fit_law, refitted
from sweepctl.analyse._points import is_reserved
from sweepctl.analyse._results import FitResult, FitWarning
from sweepctl.analyse._scales import is_metric
from sweepctl.analyse._validation import with_outliers
from sweepctl.errors import UsageError
from sweepctl.study import Fit

_RUNS = {
    *("seed", "seeds", "run", "runs", "rerun", "repeat", "repeats", "repetition", "replicate"),
    *("replicates", "replica", "rep", "reps", "trial", "trials", "rng"),
}
"""Last words of columns that number the runs of one configuration."""
_NUMBERING = {"id", "no", "nr", "num", "number", "index", "idx", "name", "key", "uuid", "hash"}
"""Words after those, as in run_id."""
_MADE = {
    *("created", "updated", "started", "finished", "ended", "timestamp", "datetime", "date"),
    *("runtime", "hostname", "host", "uuid", "unnamed"),
}
"""Last words of columns that say when or where a row was made."""
_INDEX = {"", "#", "index", "idx", "row", "level_0"}
_MEASURED = {"loss", "acc", "accuracy", "fid", "is", "kid", "fvd"}
"""Names of measured values that are not among ours."""
_OF_SPLIT = {"val", "valid", "validation", "eval", "test", "train", "best", "final", "last"}
"""Words before the name of a measured value."""
_GROUPS = {"metrics", "metric", "summary", "results", *_OF_SPLIT}
"""First parts of dotted names under which trackers keep measured values."""
_ERRORS = ("se", "stderr", "std_err", "std_error", "standard_error")
_FACTS = {"protocol": "protocols", "dataset": "data sets", "metric": "metrics"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """What the columns of a table are.

    Attributes:
        settings: what tells configurations apart.
        seeds: what tells the runs of one configuration apart.
        error: the standard error of y.
        facts: protocol, dataset, metric or n -> the column that says it.
        left_out: why some are none of these -> the columns.
    """

    settings: tuple[str, ...]
    seeds: tuple[str, ...]
    error: str | None
    facts: Mapping[str, str]
    left_out: Mapping[str, tuple[str, ...]]


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

    Returns:
        the law, with the warnings `columns_left_out` and `seeds_as_rows` about what counts as a
        configuration; or a result without one, as of `fit_law`, where rows cannot share a fit.

    Raises:
        UsageError: the fit names a column that is not there, that holds no numbers, or whose name
            says that it numbers seeds; a weight is not positive, or goes with rows that are
            measurements of one configuration; a standard error is not a positive number.
    """
    import pandas as pd

    for name in (*fit.xs, *fit.factors):
        if name in columns and _last(name) == "seed":
            raise UsageError(
                f"the column {name!r} numbers seeds, which are averaged: it cannot be a variable",
                hint="rename the column if its values are a setting",
            )
    count = len(columns[fit.metric])
    rows = list(numbers or range(1, count + 1))
    values = {name: [_plain(value) for value in column] for name, column in columns.items()}
    roles = _roles(values, fit, weight)
    frame = pd.DataFrame(
        {
            "cell": rows,
            "task": [f"row {row}" for row in rows],
            "metric": fit.metric,
            "dataset": fit.on,
            "protocol": _fact(values, roles, "protocol", [""] * count),
            "n": pd.Series(_fact(values, roles, "n", [None] * count), dtype="object"),
            "value": list(columns[fit.metric]),
            "seed": _together(values, roles.seeds, count),
            # A column may be called as one of ours; its longer name is found by the short one.
            **{
                f"column.{name}" if is_reserved(name) else name: pd.Series(
                    values[name], dtype="object"
                )
                for name in roles.settings
            },
        }
    )
    if roles.error is not None:
        _check_errors(roles.error, values[roles.error], rows)
        frame["se"] = pd.Series(values[roles.error], dtype="float64")
    result = fit_law("law", frame, fit)
    if refusal := _mixed(values, roles, fit):
        result = replace(refitted(result, ()), warnings=(refusal,))
    if weight is not None:
        stated = dict(zip(rows, map(float, columns[weight]), strict=True))
        result = _with_weights(result, stated, weight)
    result = with_outliers(result)
    told = _notices(values, roles, fit, count, stated=weight is not None)
    said = tuple(
        FitWarning(code=warning.code, message=_of_rows(warning.message))
        for warning in result.warnings
        # Of single columns `_notices` knows more.
        if warning.code != "seeds_as_rows" or weight is not None
    )
    return replace(
        result,
        meaning=_of_rows(result.meaning),
        warnings=(*told, *said) if result.fitted else (*said, *told),
    )


def error_column(columns: Collection[str], fit: Fit) -> str | None:
    """The column with the standard error of y: `se`, `stderr` or Y_se; None without one."""
    stated = (fit.metric, *fit.xs, *fit.factors)
    names = [*_ERRORS, *(f"{fit.metric.lower()}_{error}" for error in _ERRORS)]
    found = {name.lower(): name for name in columns if name not in stated}
    return next((found[name] for name in names if name in found), None)


def _check_errors(name: str, values: Sequence[Any], rows: Sequence[int]) -> None:
    for row, value in zip(rows, values, strict=True):
        if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise UsageError(
                f"row {row}: {name} is {value!r}: a standard error is a number above 0, or missing"
            )


# ------------------------------------------------------------------------------- what columns are


def _roles(values: Mapping[str, Sequence[Any]], fit: Fit, weight: str | None) -> _Roles:
    stated = (*fit.xs, *fit.factors)
    error = error_column(values, fit)
    facts = {
        fact: name
        for name, column in values.items()
        if name not in (fit.metric, weight, *stated) and (fact := _fact_named(name, column))
    }
    taken = {fit.metric, weight, error, *facts.values()}
    free = [name for name in values if name not in taken and name not in stated]
    if weight is not None:  # then every row is a configuration, whatever its columns are called
        seeds = [name for name in free if _last(name) == "seed"]
        measured = [name for name in free if is_metric(name)]
        kept = [name for name in values if name in stated or name in free]
        return _Roles(
            settings=tuple(name for name in kept if name not in (*seeds, *measured)),
            seeds=tuple(seeds),
            error=error,
            facts=facts,
            left_out={},
        )
    seeds = [name for name in free if _numbers_runs(name)]
    made = [name for name in free if name not in seeds and _says_where(name)]
    measured = [
        name for name in free if name not in (*seeds, *made) and _is_measured(name, values[name])
    ]
    rest = [name for name in free if name not in (*seeds, *made, *measured)]
    count = len(values[fit.metric])
    levels = set(zip(*(values[x] for x in stated if x in values), strict=True))
    repeats = 1 < len(levels) < count
    apart = [name for name in rest if repeats and len(set(map(repr, values[name]))) == count]
    return _Roles(
        settings=tuple(n for n in values if n in stated or (n in rest and n not in apart)),
        seeds=(*seeds, *apart),
        error=error,
        facts=facts,
        left_out={
            "the runs of a configuration": tuple(n for n in seeds if n != "seed"),
            f"different on every row while {' and '.join(stated)} repeat": tuple(apart),
            "measured values": tuple(measured),
            "when, where or in which order a row was made": tuple(made),
        },
    )


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1].strip().lower()


def _words(name: str) -> list[str]:
    """Words of the last dotted part: rngSeed, rng_seed and RNG-Seed are rng, seed."""
    last = re.split(r"[./]", name)[-1]
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", last)]


def _numbers_runs(name: str) -> bool:
    words = _words(name)
    while len(words) > 1 and words[-1] in _NUMBERING:
        words.pop()
    return bool(words) and (words[-1] in _RUNS or words[-2:] == ["random", "state"])


def _says_where(name: str) -> bool:
    words = _words(name)
    if words and words[-1] in ("at", "time") and len(words) > 1:  # created_at, Start Time
        return words[-2] in (*_MADE, "start", "end", "relative")
    return name.strip().lower() in _INDEX or (bool(words) and words[-1] in _MADE)


def _is_measured(name: str, values: Sequence[Any]) -> bool:
    """Whether a column holds a metric, by its name: lpips, val_loss, metrics.psnr, rfid_se."""
    if not any(isinstance(value, Real) for value in values):
        return False
    group, _, last = name.lower().replace("/", ".").rpartition(".")
    if group and group.split(".")[0] not in _GROUPS:
        return False  # stages.stage1.loss.lpips is a setting
    words = re.split(r"[_\s-]+", last)
    while len(words) > 1 and words[0] in _OF_SPLIT:
        words = words[1:]
    bare = "_".join(words)
    return any(is_metric(one) or one in _MEASURED for one in (bare, bare.removesuffix("_se")))


def _fact_named(name: str, values: Sequence[Any]) -> str:
    """protocol, dataset, metric or n where a column says that of its rows, else empty."""
    if name.lower() in _FACTS:
        return name.lower()
    if name.lower() == "on" and all(isinstance(value, str) for value in values):
        return "dataset"
    # N is a number of parameters elsewhere, and 0.5 no number of samples.
    whole = all(
        value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
        for value in values
    )
    return "n" if name == "n" and whole else ""


def _fact(
    values: Mapping[str, Sequence[Any]], roles: _Roles, fact: str, default: list[Any]
) -> list[Any]:
    if fact not in roles.facts:
        return default
    found = values[roles.facts[fact]]
    return list(found) if fact == "n" else ["unknown" if v is None else v for v in found]


def _mixed(values: Mapping[str, Sequence[Any]], roles: _Roles, fit: Fit) -> FitWarning | None:
    """Why values of several data sets or metrics cannot share a fit; `_points` sees the others."""
    for fact in ("dataset", "metric"):
        found = sorted({str(value) for value in _fact(values, roles, fact, [])})
        if len(found) > 1:
            what = "was measured on" if fact == "dataset" else "holds"
            message = (
                f"{fit.metric} of {fit.on} {what} {len(found)} {_FACTS[fact]} "
                f"({', '.join(found)}); their values cannot share a fit: choose one by --where "
                f"\"{roles.facts[fact]} = '{found[0]}'\""
            )
            return FitWarning(code="mixed_datasets", message=message)
    return None


def _together(values: Mapping[str, Sequence[Any]], names: Sequence[str], count: int) -> list[Any]:
    """What tells the runs of a configuration apart: one value, from one column or several."""
    if not names:
        return [0] * count
    if len(names) == 1:
        return list(values[names[0]])
    return [repr(row) for row in zip(*(values[name] for name in names), strict=True)]


# ----------------------------------------------------------------------------------------- notices


def _notices(
    values: Mapping[str, Sequence[Any]], roles: _Roles, fit: Fit, count: int, *, stated: bool
) -> list[FitWarning]:
    """What was left out, and which columns alone make several configurations of one."""
    if stated or not count:
        return []
    codes = {name: _codes(values[name]) for name in roles.settings}
    found = _distinct(codes, roles.settings, count)
    told = []
    if parts := [f"{', '.join(names)} ({why})" for why, names in roles.left_out.items() if names]:
        message = f"left out of the settings: {'; '.join(parts)}"
        if found < count:
            message += f"; the {count:,} rows are {found:,} configurations"
        told.append(FitWarning(code="columns_left_out", message=message))
    # Columns that only rename each other's values are one.
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in roles.settings:
        if name not in (*fit.xs, *fit.factors):
            groups.setdefault(codes[name], []).append(name)
    for names in groups.values():
        rest = [name for name in roles.settings if name not in names]
        merged = _distinct(codes, rest, count)
        if merged < found:
            which = " and ".join(names)
            message = (
                f"{found:,} points are {merged:,} configurations that differ in {which}: rows "
                "that only repeat a configuration make every interval too narrow; if it numbers "
                f"repeats, call {names[0]} seed to average them; if it is a setting, make it a "
                "factor or choose one of its values by --where"
            )
            told.append(FitWarning(code="seeds_as_rows", message=message))
    return told


def _codes(values: Sequence[Any]) -> tuple[int, ...]:
    """Values as numbers in the order in which they first appear."""
    seen: dict[Any, int] = {}
    return tuple(seen.setdefault(value, len(seen)) for value in values)


def _distinct(codes: Mapping[str, Sequence[int]], names: Sequence[str], count: int) -> int:
    if not names:
        return min(count, 1)
    return len(set(zip(*(codes[name] for name in names), strict=True)))


def _plain(value: Any) -> Any:
    """A value as it is compared: 8.0 is 8, and what is missing is None."""
    if type(value) in (str, int):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if value is None or str(value) in ("<NA>", "NaT"):
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value if isinstance(value, str | int) else str(value)


# ----------------------------------------------------------------------------------------- weights


def _with_weights(result: FitResult, weights: Mapping[int, float], column: str) -> FitResult:
    """The law again, with weights that are stated instead of estimated."""
    if any(not 0 < weight < math.inf for weight in weights.values()):
        raise UsageError(f"the weights in column {column!r} must be positive and finite")
    if any(len(point.cells) > 1 or point.seeds > 1 for point in result.points):
        raise UsageError(
            f"column {column!r} weights rows, but some rows are measurements of one configuration",
            hint="give one row per configuration, or leave the weights to the seeds",
        )
    mean = sum(weights.values()) / len(weights)
    again = refitted(
        replace(result, weighting=f"column {column}"),
        [replace(point, weight=weights[point.cells[0]] / mean) for point in result.points],
    )
    about_rows = [w for w in result.warnings if w.code in ("seeds_as_rows", "duplicate_rows")]
    return replace(again, warnings=(*about_rows, *again.warnings)) if again.fitted else again


def _of_rows(text: str) -> str:
    return re.sub(r"\bcell(s?) (?=\d)", r"row\1 ", text)
