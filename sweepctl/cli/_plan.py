"""`plan`: what runs would do and cost, and what the study will be able to tell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweepctl.cli._costs import in_hours, what_they_share, what_would_run
from sweepctl.cli._options import Devices, Json, Sets
from sweepctl.cli._output import give_json, give_table, say
from sweepctl.cli._session import database, open_for_reading, plan_file
from sweepctl.errors import UsageError

if TYPE_CHECKING:
    from sweepctl.design import Forecast, Stated
    from sweepctl.plan import CellCost, On, Plan

POWER = "Power, by simulation"

DRAWS = 400
"""Simulated studies: a share of 50 % is known to 2.5 points (one standard error), 95 % to 1.1."""


def plan(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A study file, or several.")
    ],
    overrides: Sets = None,
    on: Devices = None,
    power: Annotated[
        bool,
        typer.Option(
            "--power", help="Simulate the fits and claims instead.", rich_help_panel=POWER
        ),
    ] = False,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            "--noise",
            metavar="[METRIC=]SD",
            help="Standard deviation between runs, log2 for distances; can be repeated.",
            rich_help_panel=POWER,
        ),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume",
            metavar="FIT=SLOPE[@LEVEL]|FIT=BEND~X[@LEVEL]",
            help="Expected slope per doubling and y in the middle of the design; or a parabola's "
            "bend, the x of its optimum and y there.",
            rich_help_panel=POWER,
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            min=10,
            max=100_000,
            help="Simulated studies; 400.",
            rich_help_panel=POWER,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what runs would do and cost; writes nothing.

    Hours are those of finished tasks on the same kind of device; where there are none, --on assumes
    a share of a device's peak. Of several studies, tasks that they share are counted once.

    --power simulates the declared fits and claims on the planned cells instead. Laws and noise are
    those you state, else those of runs that are done, else (laws only) the paper's or none.

    Example: sweepctl plan studies/quickstart.yaml --set steps=800
    """
    if (noise or assume or draws) and not power:
        raise UsageError("--noise, --assume and --draws go with --power")
    if power and len(files) > 1:
        raise UsageError("--power takes one study at a time")
    devices = None if on is None else _devices(on)
    plans = [plan_file(file, overrides or ()) for file in files]
    if not power:
        if len(plans) == 1:
            what_would_run(plans[0], devices, as_json=as_json)
        else:
            what_they_share(plans, devices, as_json=as_json)
        return
    _what_it_can_say(
        plans[0],
        devices,
        noise=dict(_noise(text) for text in noise or ()),
        stated=dict(_assumption(text) for text in assume or ()),
        draws=draws or DRAWS,
        as_json=as_json,
    )


# --- what it can say --------------------------------------------------------------------------


def _devices(text: str) -> On:
    from sweepctl.plan import parse_on

    return parse_on(text)


def _noise(text: str) -> tuple[str, float]:
    metric, _, value = text.rpartition("=")
    number = _number(value)
    if number is None or not 0 < number < math.inf:
        raise UsageError(f"--noise takes a number above 0, not {text!r}", hint="--noise psnr=0.3")
    return metric, number


def _assumption(text: str) -> tuple[str, Stated]:
    from sweepctl.design import Stated

    match = re.fullmatch(r"([^=]+)=([^@~]+)(?:~([^@]+))?(?:@(.+))?", text)
    slope, optimum, level = (
        None if match is None or match[place] is None else _number(match[place])
        for place in (2, 3, 4)
    )
    unread = match is not None and any(
        word is not None and value is None
        for word, value in zip(match.groups()[1:], (slope, optimum, level), strict=True)
    )
    if match is None or slope is None or unread:
        raise UsageError(
            f"--assume takes FIT=SLOPE, FIT=SLOPE@LEVEL or FIT=BEND~X@LEVEL, not {text!r}",
            hint="--assume fidelity=2.3@25 expects 2.3 a doubling, around 25; "
            "--assume gfid=0.14~4096@3 a minimum of 3 at 4096",
        )
    if optimum is None:
        return match[1], Stated(slope=slope, level=level)
    if slope == 0 or optimum <= 0:
        raise UsageError(f"--assume {text}: an optimum needs a bend other than 0 and an x above 0")
    return match[1], Stated(bend=slope, optimum=optimum, level=level)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _what_it_can_say(
    made: Plan,
    on: On | None,
    *,
    noise: dict[str, float],
    stated: dict[str, Stated],
    draws: int,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    import pandas as pd

    from sweepctl.design import forecast
    from sweepctl.ledger import ledger_exists
    from sweepctl.plan import Calibration, cell_costs, design_rows

    study, pilot, speeds = made.study.study, None, []
    if ledger_exists(database()):
        with open_for_reading() as ledger:
            speeds = list(ledger.tasks.speeds())
            if made.study_name in ledger.studies.names():
                pilot = ledger.cells.frame(made.study_name)
    design = pd.DataFrame.from_records(design_rows(made))
    told = forecast(
        design, study.fits, study.claims, noise=noise, stated=stated, pilot=pilot, draws=draws
    )
    costs = cell_costs(made, Calibration(speeds, on))
    if as_json:
        give_json({"schema": 1, "study": made.study_name, **asdict(told), "cells": costs})
        return
    for line in told.assumed:
        say(line)
    _give_forecast(told)
    _say_costs(costs)
    error = 100 * math.sqrt(0.25 / told.draws)
    say(f"{told.draws} simulated studies: a share is known to {error:.2g} points (standard error)")


def _give_forecast(told: Forecast) -> None:
    def number(value: float) -> float | str:
        return float(f"{value:.4g}") if math.isfinite(value) else ""

    rows: list[Sequence[object]] = [
        (
            fit.name,
            fit.quantity,
            fit.n,
            round(fit.seeds, 2),
            number(fit.expected),
            number(fit.half_width),
            number(fit.one_seed_more),
            number(fit.least),
            round(100 * fit.made, 1),
        )
        for fit in told.fits
    ]
    columns = (
        *("fit", "quantity", "n", "seeds", "expected", "plus_minus", "with_a_seed_more"),
        *("least_slope", "made_percent"),
    )
    give_table(columns, rows, "table")
    for fit in told.fits:
        if fit.reason:
            say(f"{fit.name} was not fitted in {100 * (1 - fit.made):.0f} % of them: {fit.reason}")
    if told.claims:
        shares = [
            (
                claim.name,
                *(
                    round(100 * share, 1)
                    for share in (claim.supported, claim.contradicted, claim.undecided)
                ),
            )
            for claim in told.claims
        ]
        names = ("claim", "supported_percent", "contradicted_percent", "undecided_percent")
        give_table(names, shares, "table")
    for claim in told.claims:
        if claim.undecided > 0.2:
            say(f"{claim.name}: {claim.undecided:.0%} undecided, for example: {claim.example}")


def _say_costs(costs: Sequence[CellCost]) -> None:
    flops = [cost.flops for cost in costs]
    hours = [cost.hours for cost in costs if cost.hours is not None]
    spent = f"{min(flops):.2e} to {max(flops):.2e} FLOPs"
    total = f"{sum(flops):.2e} FLOPs"
    if len(hours) == len(costs):
        spent += f" ({in_hours(min(hours), max(hours))} of a device)"
        total += f", {in_hours(sum(hours))}"
    say(f"a cell costs {spent}; as many cells again, for one seed more of each: {total} or less")
