"""`suggest`: the cells or seeds that narrow a law most for their cost."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sweepctl.cli._options import Devices, File, Json, Sets
from sweepctl.cli._output import give, give_json, give_table, say
from sweepctl.cli._session import database, open_for_reading, plan_file, site, site_file
from sweepctl.errors import UsageError
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.design import Suggestion
    from sweepctl.plan import Calibration, Candidates, Plan
    from sweepctl.study import Study

Unit = Literal["hours", "FLOPs"]

BUDGET = "Budget, one of"

SEEDS = 3
"""Most further seeds of a configuration that --seeds-too chooses from."""


def suggest(
    file: File,
    hours: Annotated[
        float | None,
        typer.Option("--hours", min=0, help="Hours of one device.", rich_help_panel=BUDGET),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option("--flops", min=0, help="Floating point operations.", rich_help_panel=BUDGET),
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", help="The law to narrow; the first by default.")
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            "--criterion", help="V, the default: the law where it may be used; D: its parameters."
        ),
    ] = None,
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--within",
            metavar="AXIS=LOW..HIGH",
            help="Bounds of a numeric axis, by default its own range; can be repeated.",
        ),
    ] = None,
    seeds_too: Annotated[
        bool, typer.Option("--seeds-too", help="Also further seeds, not only new cells.")
    ] = False,
    noise: Annotated[
        float | None,
        typer.Option(
            "--noise", help="Deviation from run to run, log2 for distances; else from seeds."
        ),
    ] = None,
    on: Devices = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check", metavar="CONDITION", help="Predicted and measured values of cells."
        ),
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="On stdout only the block to paste.")
    ] = False,
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Suggest the cells or seeds that narrow a law's intervals most for a budget.

    Chosen from combinations of axis values and values between them, to the law so far. Prints a
    `zip:` block that has the study's cells and the new ones, to paste in place of its `axes:`.
    After they ran, `--check "c = 24"` compares what the law without these cells predicts with
    what was measured.

    Example: sweepctl suggest studies/quickstart.yaml --flops 2e12 --noise 0.4
    """
    made = plan_file(file, overrides or ())
    if check is not None:
        if (hours, flops, noise, on, within, criterion) != (None,) * 6 or seeds_too or as_yaml:
            raise UsageError("--check chooses nothing: it goes with --fit, --set and --json only")
        _check(made, fit, check, as_json=as_json)
        return
    _refuse(hours, flops, criterion, both=as_yaml and as_json)
    found, offered = _candidates(made, within or (), SEEDS if seeds_too else 0)
    measured, calibration = _known(made, on)
    unit: Unit = "hours" if flops is None else "FLOPs"
    told = _told(
        made.study.study,
        fit,
        found,
        offered,
        _costs(made, offered, unit, calibration),
        flops if hours is None else hours,
        measured=measured,
        noise=noise,
        criterion="D" if criterion == "D" else "V",
    )
    block = found.block([run.cell for run in told.runs])
    axes = [offered.cells[run.cell - 1].axes for run in told.runs]
    if as_json:
        give_json(_facts(told, unit, made, axes) | {"block": block})
        return
    _say(told, unit, made)
    if not as_yaml:
        _table(told, unit, axes)
    _give_block(found, len(told.runs), made, block)


def _refuse(hours: float | None, flops: float | None, criterion: str | None, *, both: bool) -> None:
    """Refuse options that do not go together; `both` are --yaml and --json."""
    if (hours is None) == (flops is None):
        raise UsageError("state what may be spent: either --hours or --flops")
    if criterion not in (None, "V", "D"):
        raise UsageError(f"there is no criterion {criterion!r}", hint="V or D")
    if both:
        raise UsageError("--yaml and --json are mutually exclusive", hint="choose one of them")


def _give_block(found: Candidates, runs: int, made: Plan, block: str) -> None:
    """Print the block to paste into the study."""
    give(
        f"# in place of `axes:` and `zip:`: {many(found.own, 'cell')} of {made.study_name} and "
        f"{runs} more\n{block}"
    )


CHECKED = ("cell", "fit", "predicted", "low", "high", "measured", "inside")
"""Columns of the check: the 95 % interval is that of one run of a new configuration."""


def _check(made: Plan, named: str | None, condition: str, *, as_json: bool) -> None:
    """Measured cells that meet a condition, and what the laws of all others predict for them."""
    from sweepctl.claims import fit_study
    from sweepctl.design import predict_cells
    from sweepctl.ledger import matching

    study = made.study.study
    declared = {name: law for name, law in study.fits.items() if named in (None, name)}
    if not declared:
        raise UsageError(f"there is no fit {named!r}; the study's fits are: {_listed(study)}")
    with open_for_reading() as ledger:
        frame = ledger.cells.frame(made.study_name)
    plain = frame.astype("object").where(frame.notna(), None)
    try:
        places = matching(list(map(str, plain.columns)), plain.to_numpy().tolist(), condition)
    except UsageError as error:
        raise UsageError(error.message.replace("--where", "--check"), hint=error.hint) from error
    added = plain.iloc[places]
    if not len(added):
        raise UsageError(f"no measured cell of {made.study_name} meets --check {condition!r}")
    rest = frame.drop(index=added.index)
    laws = fit_study(rest, declared, ()).fits
    rows: list[tuple[Any, ...]] = []
    for law in laws:
        if not law.fitted:
            say(f"fit {law.name}: no law without these cells: {law.reason}")
            continue
        own = added[(added["metric"] == law.metric) & (added["dataset"] == law.on)]
        for one, value in zip(own.to_dict("records"), own["value"], strict=True):
            for told in predict_cells([law], [one]):
                inside = told.low <= value <= told.high
                rows.append((told.cell, law.name, told.value, told.low, told.high, value, inside))
    if not rows:
        raise UsageError(
            f"nothing can be predicted for --check {condition!r}: no law is left without these "
            "cells, or none is of what was measured in them",
            hint="leave the laws enough cells: a condition that fewer of them meet",
        )
    rows.sort(key=lambda row: (row[1], row[0]))
    kept = sum(row[-1] for row in rows)
    if as_json:
        told_rows = [dict(zip(CHECKED, row, strict=True)) for row in rows]
        give_json({"schema": 1, "study": made.study_name, "check": condition, "cells": told_rows})
        return
    say(f"{kept} of {many(len(rows), 'value')} inside the 95 % interval that was predicted")
    give_table(CHECKED, [(*row[:-1], "yes" if row[-1] else "no") for row in rows], "table")


def _listed(study: Study) -> str:
    return ", ".join(study.fits) or "none"


def _range(text: str) -> tuple[str, tuple[float, float]]:
    match = re.fullmatch(r"([^=]+)=([^=]+?)\.\.(.+)", text)
    try:
        low, high = (float(match[2]), float(match[3])) if match else (math.nan, math.nan)
    except ValueError:
        low = high = math.nan
    if match is None or not low <= high or not math.isfinite(high - low):
        raise UsageError(f"--within takes AXIS=LOW..HIGH, not {text!r}", hint="--within c=4..256")
    return match[1].strip(), (low, high)


def _candidates(made: Plan, within: Sequence[str], seeds: int) -> tuple[Candidates, Plan]:
    from sweepctl.datasets import data_identities
    from sweepctl.plan import candidates, make_plan

    bounds = dict(map(_range, within))
    data = data_identities(site().datasets if site_file() else None)
    found = candidates(made.study, data=data, within=bounds, seeds=seeds)
    return found, make_plan(found.study, data=data)


def _known(made: Plan, on: str | None) -> tuple[Any, Calibration]:
    """Values that were measured, and what hours go by."""
    from sweepctl.ledger import ledger_exists
    from sweepctl.plan import Calibration, parse_on

    devices = None if on is None else parse_on(on)
    if not ledger_exists(database()):
        return None, Calibration((), devices)
    with open_for_reading() as ledger:
        known = made.study_name in ledger.studies.names()
        measured = ledger.cells.frame(made.study_name) if known else None
        return measured, Calibration(ledger.tasks.speeds(), devices)


def _costs(made: Plan, offered: Plan, unit: Unit, calibration: Calibration) -> dict[int, float]:
    """What each further cell costs: its tasks that the study does not have anyway."""
    from sweepctl.plan import expected_hours

    costs: dict[int, float] = {}
    for cell in offered.cells:
        own = [offered.tasks[name] for name in set(cell.tasks.values()) if name not in made.tasks]
        if unit == "FLOPs":
            costs[cell.index] = float(sum(task.cost.flops for task in own))
            continue
        spent = expected_hours(own, calibration)
        if spent.unknown:
            kinds = ", ".join(spent.unknown)
            raise UsageError(
                f"how long tasks of these kinds take is not known here: {kinds}",
                hint="say where they will run (--on H100@0.35), or give a budget by --flops",
            )
        costs[cell.index] = spent.hours
    return costs


def _told(
    study: Study,
    named: str | None,
    found: Candidates,
    offered: Plan,
    costs: dict[int, float],
    budget: float | None,
    **known: Any,
) -> Suggestion:
    import pandas as pd

    from sweepctl.design import suggest as choose
    from sweepctl.plan import design_rows

    if not study.fits:
        raise UsageError(
            f"{study.study} declares no fit, so there is no law to narrow",
            hint="add one to `fits:`",
        )
    name = named or next(iter(study.fits))
    if name not in study.fits:
        raise UsageError(f"there is no fit {name!r}; the study's fits are: {_listed(study)}")
    assert budget is not None
    rows = pd.DataFrame.from_records(design_rows(offered))
    return choose(name, study.fits[name], rows, found.own, costs, budget, **known)


def _say(told: Suggestion, unit: str, made: Plan) -> None:
    after = told.runs[-1].after
    say(
        f"fit {told.fit}, criterion {told.criterion}: {many(len(told.runs), 'run')} of "
        f"{told.considered:,} that could be chosen, {told.cost:.3g} {unit}"
    )
    say(
        f"noise of a run {told.noise:.3g}, of a configuration beyond it {told.scatter:.3g} "
        f"({told.noise_source})"
    )
    for what, one, other in (
        ("slope", told.before.slope, after.slope),
        ("law", told.before.law, after.law),
    ):
        say(f"{what}: +-{one:.3g} (95 %) with the study's own cells, +-{other:.3g} with these")
    if made.absent:
        say("note: some of it cannot be run on this machine; `sweepctl plan` says why")


def _table(told: Suggestion, unit: str, axes: Sequence[Any]) -> None:
    names = list(axes[0])
    columns = (*names, "run", unit, "slope_plus_minus", "law_plus_minus")
    rows = [
        (
            *(cell[name] for name in names),
            run.runs,
            f"{run.cost:.3g}",
            *(
                float(f"{value:.3g}") if math.isfinite(value) else ""
                for value in (run.after.slope, run.after.law)
            ),
        )
        for cell, run in zip(axes, told.runs, strict=True)
    ]
    give_table(columns, rows, "table")


def _plain(told: Suggestion) -> list[dict[str, Any]]:
    return [
        {"xs": run.xs, "run": run.runs, "cost": run.cost, **_ends(run.after)} for run in told.runs
    ]


def _facts(told: Suggestion, unit: Unit, made: Plan, axes: Sequence[Any]) -> dict[str, Any]:
    """The suggestion for strict JSON."""
    runs = [{"axes": cell, **run} for cell, run in zip(axes, _plain(told), strict=True)]
    return {
        "schema": 1,
        "study": made.study_name,
        "unit": unit,
        "fit": told.fit,
        "criterion": told.criterion,
        "noise": told.noise,
        "scatter": told.scatter,
        "noise_source": told.noise_source,
        "considered": told.considered,
        "before": _ends(told.before),
        "cost": told.cost,
        "runs": runs,
    }


def _ends(one: Any) -> dict[str, Any]:
    return {"n": one.n, "slope_plus_minus": one.slope, "law_plus_minus": one.law}
