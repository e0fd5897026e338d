"""What would a run do and cost, and what will it be able to say? `plan`, which writes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Db, File, Json, Sets
from sweepctl.cli._session import (
    database,
    give_json,
    give_table,
    many,
    notices,
    open_for_reading,
    plan_file,
    say,
)
from sweepctl.errors import UsageError

if TYPE_CHECKING:
    from sweepctl.analyse import Forecast, Stated
    from sweepctl.plan import CellCost, Plan

DRAWS = 400
"""Simulated studies: a share of 50 % is known to 2.5 points (one standard error), 95 % to 1.1."""


def plan(
    file: File,
    overrides: Sets = None,
    power: Annotated[
        bool, typer.Option("--power", help="What the fits and claims will be able to say.")
    ] = False,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            "--noise",
            metavar="[METRIC=]SD",
            help="With --power: deviation from run to run, log2 for distances; can be repeated.",
        ),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume",
            metavar="FIT=SLOPE[@LEVEL]",
            help="With --power: an expected slope a doubling, and y in the middle of the design.",
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", min=10, max=100_000, help="With --power: simulated studies; 400."),
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show what a run would do and cost; writes nothing.

    --power simulates the declared fits and claims on the planned cells instead. Laws and noise are
    those you state, else those of runs that are done, else (laws only) the paper's or none.

    Example: sweepctl plan studies/quickstart.yaml --set steps=800
    """
    if (noise or assume or draws) and not power:
        raise UsageError("--noise, --assume and --draws go with --power")
    if not power:
        made = plan_file(file, overrides or (), to_run=True)
        _what_would_run(made, _what_is_known(made, db), as_json=as_json)
        return
    made = plan_file(file, overrides or ())
    _what_it_can_say(
        made,
        db,
        noise=dict(_noise(text) for text in noise or ()),
        stated=dict(_assumption(text) for text in assume or ()),
        draws=draws or DRAWS,
        as_json=as_json,
    )


# --- what would run ---------------------------------------------------------------------------


def _what_would_run(made: Plan, known: _Known, *, as_json: bool) -> None:
    from sweepctl.plan import reasons, summary

    lines = summary(made, known.states, known.speeds)
    why = reasons(made, known.states, known.recorded, known.attempts)
    if as_json:
        give_json(
            {
                "schema": 1,
                "study": made.study_name,
                "cells": len(made.cells),
                "tasks": len(made.tasks),
                "stages": lines,
                "reasons": why,
                "dropped": list(made.dropped),
                "notices": list(made.notices),
                "other_code": known.other_code,
            }
        )
        return
    new = sum(line.new for line in lines)
    say(
        f"{made.study_name}: {many(len(made.cells), 'cell')}, {many(len(made.tasks), 'task')}, "
        f"{new} to run" + ("" if new else ": nothing to do")
    )
    columns = (
        "stage", "cells", "tasks", "shared", "cached", "new", "blocked", "FLOPs", "disk", "hours",
    )  # fmt: skip
    rows = [
        (
            line.stage,
            line.cells,
            line.tasks,
            line.shared,
            line.cached,
            line.new,
            line.blocked,
            f"{line.flops:.2e}" if line.flops else "",
            _bytes(line.disk_bytes),
            "" if line.hours is None else f"{line.hours:.3g}",
        )
        for line in lines
    ]
    give_table(columns, rows, "table")
    for reason in why:
        say(f"{reason.stage}: {many(reason.tasks, 'task')} {reason.why} (e.g. {reason.example})")
    if known.other_code:
        say(
            f"note: {many(known.other_code, 'result')} were made by other code than this; they "
            "are used as they are"
        )
    notices(made)


class _Known:
    """What the ledger knows about a plan; nothing at all when there is no ledger yet."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.speeds: list[Any] = []
        self.recorded: list[Any] = []
        self.other_code = 0


def _what_is_known(made: Plan, db: str | None) -> _Known:
    from sweepctl.ledger import ledger_exists
    from sweepctl.runs import NOT_ITS_FAULT
    from sweepctl.tasks import code_hash

    known = _Known()
    if not ledger_exists(database(db)):
        return known
    with open_for_reading(db) as ledger:
        states = ledger.task_states(list(made.tasks))
        known.states = {
            # What the next run tries again by itself is not blocked by its failure.
            name: "pending"
            if state.state == "failed" and state.failure in NOT_ITS_FAULT
            else state.state
            for name, state in states.items()
        }
        known.attempts = {name: state.attempts for name, state in states.items()}
        known.speeds = list(ledger.speeds())
        if any(known.states.get(name) != "done" for name in made.tasks):
            known.recorded = ledger.recorded(made.study_name)
        counts = ledger.code_counts(list(made.tasks))
        known.other_code = sum(counts.values()) - counts.get(code_hash(), 0)
    return known


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


# --- what it can say --------------------------------------------------------------------------


def _noise(text: str) -> tuple[str, float]:
    metric, _, value = text.rpartition("=")
    number = _number(value)
    if number is None or not 0 < number < math.inf:
        raise UsageError(f"--noise takes a number above 0, not {text!r}", hint="--noise psnr=0.3")
    return metric, number


def _assumption(text: str) -> tuple[str, Stated]:
    from sweepctl.analyse import Stated

    match = re.fullmatch(r"([^=]+)=([^@]+)(?:@(.+))?", text)
    slope = None if match is None else _number(match[2])
    level = None if match is None or match[3] is None else _number(match[3])
    if match is None or slope is None or (match[3] is not None and level is None):
        raise UsageError(
            f"--assume takes FIT=SLOPE or FIT=SLOPE@LEVEL, not {text!r}",
            hint="--assume fidelity=2.3@25 expects 2.3 a doubling, around 25",
        )
    return match[1], Stated(slope=slope, level=level)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _what_it_can_say(
    made: Plan,
    db: str | None,
    *,
    noise: dict[str, float],
    stated: dict[str, Stated],
    draws: int,
    as_json: bool,
) -> None:
    import pandas as pd

    from sweepctl.analyse import forecast
    from sweepctl.ledger import ledger_exists
    from sweepctl.plan import cell_costs, design_rows

    study, pilot, speeds = made.study.study, None, []
    if ledger_exists(database(db)):
        with open_for_reading(db) as ledger:
            speeds = list(ledger.speeds())
            if made.study_name in ledger.study_names():
                pilot = ledger.frame(made.study_name)
    design = pd.DataFrame.from_records(design_rows(made))
    told = forecast(
        design, study.fits, study.claims, noise=noise, stated=stated, pilot=pilot, draws=draws
    )
    costs = cell_costs(made, speeds)
    if as_json:
        give_json({"schema": 1, "study": made.study_name, **_plain(told), "cells": costs})
        return
    for line in told.assumed:
        say(line)
    _give_forecast(told)
    _say_costs(costs)
    error = 100 * math.sqrt(0.25 / told.draws)
    say(f"{told.draws} simulated studies: a share is known to {error:.2g} points (standard error)")


def _plain(told: Forecast) -> dict[str, Any]:
    """The forecast for strict JSON: what is not a finite number is null."""
    import dataclasses

    data: dict[str, Any] = dataclasses.asdict(told)
    for fit in data["fits"]:
        for name, value in fit.items():
            if isinstance(value, float) and not math.isfinite(value):
                fit[name] = None
    return data


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
        spent += f" ({min(hours):.3g} to {max(hours):.3g} hours of a slot)"
        total += f", {sum(hours):.3g} hours"
    say(f"a cell costs {spent}; as many cells again, for one seed more of each: {total} or less")
