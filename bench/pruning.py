"""Does ending poor trials early pay? python bench/pruning.py [--seeds 3] [--out FOLDER]

Runs studies/search-pruned.yaml as it is, with rule median, and without `prune`, for several
seeds of the sampler, one trial at a time, and prints the best PSNR of each when it has spent the
training FLOPs of the search without pruning. Twenty minutes or so on one core; a folder that is
given again goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from sweepctl.ledger import Ledger, open_ledger

STUDY = Path(__file__).resolve().parent.parent / "studies" / "search-pruned.yaml"
WHOLE_TRIALS = 9
ARMS = {
    "whole": ("search.prune=null", f"search.trials={WHOLE_TRIALS}"),
    "asha": (),
    "median": ("search.prune.rule=median",),
}
STEPS = 900  # of a whole trial


def spent(ledger: Ledger) -> list[tuple[float, float | None]]:
    """(whole trainings' worth of steps so far, PSNR of a whole training or None), in time."""
    rows = ledger.query(
        "select c.stage, t.finished_at, c.cell, m.value from v_cell_task c "
        "join v_task t on t.task = c.task "
        "left join v_metric m on m.study = c.study and m.cell = c.cell and m.step is null "
        "where c.stage like 'stage1%' and t.state = 'done' "
        "order by t.finished_at"
    ).rows
    before: dict[int, int] = {}
    total, curve = 0.0, []
    for stage, _, cell, value in rows:
        step = int(stage.partition("@")[2] or STEPS)
        total += (step - before.get(cell, 0)) / STEPS
        before[cell] = step
        curve.append((total, value if step == STEPS else None))
    return curve


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--out", type=Path, default=Path("bench-pruning"))
    given = asked.parse_args()
    print(f"best PSNR within {WHOLE_TRIALS} whole trainings' worth of steps, dB")
    print("seed  " + "  ".join(f"{arm:>24}" for arm in ARMS), flush=True)
    for seed in range(given.seeds):
        told = [outcome(given.out / f"{arm}-{seed}", seed, ARMS[arm]) for arm in ARMS]
        print(f"{seed:>4}  " + "  ".join(f"{one:>24}" for one in told), flush=True)


def outcome(folder: Path, seed: int, changes: tuple[str, ...]) -> str:
    """One search in a folder of its own: the arms begin with the same points and must not share."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "results.db"
    sets = (f"search.seed={seed}", *changes)
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("sweepctl")), "run", str(STUDY)),
            *("--workers", "1", "--db", str(database), "--runs", str(folder / "runs")),
            *(word for one in sets for word in ("--set", one)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log.txt").open("a"),
    )
    with open_ledger(str(database), create=False, read_only=True) as ledger:
        curve = spent(ledger)
    within = [value for at, value in curve if at <= WHOLE_TRIALS + 1e-9 and value is not None]
    return f"{max(within):.2f} of {len(within)} ({curve[-1][0]:.1f} spent)"


if __name__ == "__main__":
    main()
