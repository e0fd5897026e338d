"""Which values will a plan measure, and what does each cell cost? The design as rows, before a run.

The rows have the columns of the ledger's frame of measured values, with no value in them yet: what
can fit measured values can be tried on a plan.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweepctl.plan import Plan, Speed

_TAKEN = {"cell", "metric", "dataset", "protocol", "n", "value", "se", "task", "state"}


def design_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a value that the plan will measure, with the columns of `Ledger.frame`.

    Cells that share a measuring task share its name, as in the ledger; `value` is None.
    """
    rows = []
    for cell in plan.cells:
        how = cell.config["evaluate"]["reconstruction"]
        axes = {
            f"axis_{name}" if name.casefold() in _TAKEN else name: _level(value)
            for name, value in cell.axes.items()
        }
        for dataset in cell.datasets:
            task = cell.tasks.get(f"reconstruct:{dataset}")
            if task is None:
                continue
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


def _level(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCost:
    """What a cell costs, if nothing of it were done.

    Attributes:
        cell: number of the cell.
        axes: its axis values by short name.
        flops: floating point operations of its own tasks; tasks that several cells share are left
            out, because another cell does not make them dearer.
        hours: time of those tasks on one slot; None before a task of each kind was measured.
    """

    cell: int
    axes: Mapping[str, Any]
    flops: int
    hours: float | None


def cell_costs(plan: Plan, speeds: Sequence[Speed] = ()) -> list[CellCost]:
    """The cost of each cell.

    Args:
        plan: the plan.
        speeds: finished attempts to calibrate hours with.
    """
    from sweepctl.plan import expected_seconds

    uses: dict[str, int] = {}
    for cell in plan.cells:
        for task in set(cell.tasks.values()):
            uses[task] = uses.get(task, 0) + 1
    found = []
    for cell in plan.cells:
        own = [plan.tasks[task] for task in set(cell.tasks.values()) if uses[task] == 1]
        times = [expected_seconds(task.kind, task.cost.flops, speeds) for task in own]
        known = [time for time in times if time is not None]
        found.append(
            CellCost(
                cell=cell.index,
                axes=cell.axes,
                flops=sum(task.cost.flops for task in own),
                hours=sum(known) / 3600 if own and len(known) == len(own) else None,
            )
        )
    return found
