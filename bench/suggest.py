"""Does `sweepctl suggest` choose better cells than chance or a finer grid? python bench/suggest.py

200 laws over E with slopes, floors and noise drawn at random. Each is measured on the nine cells
of the quickstart's grid (p 4, 8, 16; c 4, 16, 64), then on further cells for the same FLOPs: those
that `suggest` chooses, cells drawn at random, or the plain grid (one more c, at every p, after the
other). The table shows the medians over the laws of the half-width of the 95 % interval of the
slope, and of the law, root mean square over all cells that could be chosen; both are fitted to
simulated values.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweepctl.analyse import bands, fit_law
from sweepctl.datasets import data_identities
from sweepctl.design import suggest
from sweepctl.plan import candidates, design_rows, make_plan
from sweepctl.study import Fit, load_study

LAWS = 100
"""Of each form."""


def design() -> tuple[pd.DataFrame, int, dict[int, float]]:
    """All cells of one metric, how many are the study's own, and the FLOPs of the others."""
    data = data_identities(None)
    study = load_study(Path("studies/quickstart.yaml"), overrides=(), datasets=data)
    found = candidates(study, data=data, within={"c": (2, 256)})
    own, offered = make_plan(study, data=data), make_plan(found.study, data=data)
    rows = pd.DataFrame.from_records(design_rows(offered))
    costs = {
        cell.index: float(
            sum(
                offered.tasks[name].cost.flops
                for name in set(cell.tasks.values())
                if name not in own.tasks
            )
        )
        for cell in offered.cells
    }
    return rows[rows["metric"] == "rfd_lite0"].reset_index(drop=True), found.own, costs


def fitting(order: list[int], costs: dict[int, float], budget: float) -> list[int]:
    """The first cells of an order that the budget pays for, leaving out those it does not."""
    chosen, spent = [], 0.0
    for cell in order:
        if spent + costs[cell] <= budget:
            chosen.append(cell)
            spent += costs[cell]
    return chosen


def widths(rows: pd.DataFrame, y: Any, cells: list[int], fit: Fit, region: Any) -> tuple[Any, Any]:
    """Half-widths of the slope and of the law on the fit's scale; NaN where there is no fit."""
    frame = rows.assign(value=np.exp2(y))
    law = fit_law("law", frame[frame["cell"].isin(cells)], fit)
    if law.slope is None:
        return math.nan, math.nan
    band = bands(law, region)
    half = np.log2(band.mean_high / band.mean_low) / 2
    return (law.slope.high - law.slope.low) / 2, float(np.sqrt(np.mean(half**2)))


def main() -> None:
    started = time.perf_counter()
    rows, own, costs = design()
    grid = rows.sort_values(["c", "p"], ascending=[True, True])
    plain = [cell for cell in grid["cell"] if cell > own]
    octaves = np.log2(rows["E"].to_numpy(float))
    region = rows["E"].to_numpy(float)
    budget = 6 * float(np.median([cost for cell, cost in costs.items() if cell > own]))
    rng = np.random.default_rng(0)
    for form, floors in (("loglog", (0.0,)), ("power", (0.02, 0.1, 0.3))):
        fit = Fit.model_validate({"metric": "rfd_lite0", "on": "photos-eval", "form": form})
        named: dict[str, list[tuple[float, float]]] = {}
        counts: dict[str, list[int]] = {}
        for number in range(LAWS):
            slope, noise = rng.uniform(0.4, 1.2), rng.uniform(0.05, 0.25)
            law = np.log2(floors[number % len(floors)] + 2 ** (slope * (7 - octaves)))
            y = law + noise * rng.normal(size=len(law))
            mine = list(range(1, own + 1))
            known = rows.assign(value=np.exp2(y))
            known = known[known["cell"] <= own]
            told = suggest("law", fit, rows, own, costs, budget, measured=known, noise=None)
            others = [cell for cell in costs if cell > own]
            for name, further in (
                ("none", []),
                ("suggest", [run.cell for run in told.runs]),
                ("random", fitting(list(rng.permutation(others)), costs, budget)),
                ("grid", fitting(plain, costs, budget)),
            ):
                named.setdefault(name, []).append(widths(rows, y, mine + further, fit, region))
                counts.setdefault(name, []).append(len(further))
        for name, found in named.items():
            middle = np.nanmedian(np.asarray(found), axis=0)
            print(
                f"{form:<8}{name:<9}{np.mean(counts[name]):6.1f} further cells   "
                f"slope +-{middle[0]:.4f}   law +-{middle[1]:.4f}"
            )
    print(f"{LAWS} laws a form, {budget:.2e} FLOPs each, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
