"""The design of a plan as rows before a run: the values it will measure, the cost of each cell.

The rows have the columns of the ledger's frame of measured values, with no value in them yet: what
can fit measured values can be tried on a plan.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.kinds import measuring
from sweepctl.plan._cost import Calibration, Speed, expected_hours
from sweepctl.plan._model import Cell, Plan

_TAKEN = {"cell", "metric", "dataset", "protocol", "n", "value", "se", "task", "state"}


def design_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row per value that the plan will measure, with the columns of `Ledger.frame`.

    Cells that share a measuring task share its name, as in the ledger; `value` is None.
    """
    rows = []
    for cell in plan.cells:
        axes = {
            f"axis_{name}" if name.casefold() in _TAKEN else name: _level(value)
            for name, value in cell.axes.items()
        }
        for task, dataset, how in _measurements(cell):
            rows += [
                {
                    "cell": cell.index,
                    **dataclasses.asdict(cell.derived),
                    **axes,
                    "metric": metric,
                    "dataset": dataset,
                    "protocol": how["protocol"],
                    "n": how["images"],
                    "value": None,
                    "task": task,
                }
                for metric in how["metrics"]
            ]
    return rows


def _measurements(cell: Cell) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Task, data set and settings of everything that is measured on a cell."""
    for kind in measuring():
        how = cell.config["evaluate"].get(kind.group.removeprefix("evaluate."), {})
        for dataset in how.get("on") or ():
            if task := cell.tasks.get(f"{kind.name}:{dataset}"):
                yield task, dataset, how


def _level(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCost:
    """What a cell costs, if nothing of it were done.

    Attributes:
        cell: number of the cell.
        axes: its axis values by short name.
        flops: floating point operations of its own tasks; tasks that several cells share are left
            out, because another cell does not add to them.
        hours: time of those tasks on one device; None where nothing is known of one of them.
    """

    cell: int
    axes: Mapping[str, Any]
    flops: int
    hours: float | None


def cell_costs(plan: Plan, speeds: Sequence[Speed] | Calibration = ()) -> list[CellCost]:
    """The cost of each cell.

    Args:
        plan: the plan.
        speeds: finished tasks to calibrate hours with, or the calibration.
    """
    calibration = speeds if isinstance(speeds, Calibration) else Calibration(speeds)
    uses: dict[str, int] = {}
    for cell in plan.cells:
        for task in set(cell.tasks.values()):
            uses[task] = uses.get(task, 0) + 1
    found = []
    for cell in plan.cells:
        own = [plan.tasks[task] for task in set(cell.tasks.values()) if uses[task] == 1]
        hours = expected_hours(own, calibration)
        found.append(
            CellCost(
                cell=cell.index,
                axes=cell.axes,
                flops=sum(task.cost.flops for task in own),
                hours=hours.hours if own and not hours.unknown else None,
            )
        )
    return found
