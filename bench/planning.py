"""How long does planning 10,000 cells take, and how much memory? python bench/planning.py

Plans a study of 10,000 cells in a fresh process, imports included, and prints the seconds and the
largest resident size. Targets of issue #2: under 2 s, under 400 MB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """\
format: 1
study: ten-thousand
axes:
  p: [4, 8, 16, 32]
  c: [{channels}]
  seed: [{seeds}]
data: {{train: photos-train, resolution: 32, images: 4096}}
tokenizer: {{encoder: nano, decoder: nano}}
stages: {{stage1: {{steps: 100, batch: 32, precision: fp32, loss: {{lpips: 0}}}}}}
evaluate: {{reconstruction: {{on: [photos-eval], images: 256, metrics: [psnr]}}}}
"""


def write_study(folder: Path, seeds: int) -> Path:
    """A study of 4 x 50 x `seeds` cells."""
    file = folder / "ten-thousand.yaml"
    channels = ", ".join(str(number) for number in range(1, 51))
    file.write_text(STUDY.format(channels=channels, seeds=", ".join(map(str, range(seeds)))))
    return file


def plan_once(file: Path) -> None:
    started = time.perf_counter()
    from sweepctl.datasets import data_identities
    from sweepctl.plan import make_plan
    from sweepctl.study import load_study

    imported = time.perf_counter()
    data = data_identities()
    plan = make_plan(load_study(file, datasets=data), data=data)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(plan.cells):,} cells, {len(plan.tasks):,} tasks: {ended - imported:.2f} s planning "
        f"+ {imported - started:.2f} s imports, {peak:.0f} MB"
    )


def main() -> None:
    if len(sys.argv) > 1:
        plan_once(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = write_study(Path(folder), seeds=50)
        for _ in range(3):
            subprocess.run([sys.executable, __file__, str(file)], check=True)


if __name__ == "__main__":
    main()
