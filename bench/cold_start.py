"""How fast does the command line answer? python bench/cold_start.py

Times whole processes: `sweepctl --help`, `sweepctl status` and `results` on a small recorded study,
10 times each; `status --fits` loads the statistics that the others do without. Targets of issue #2:
`--help` under 0.4 s, `status` under 0.7 s.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """\
format: 1
study: small
axes: {p: [4, 8, 16], c: [4, 16, 64]}
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano}
stages: {stage1: {steps: 2, batch: 8, precision: fp32, loss: {lpips: 0}}}
evaluate: {reconstruction: {on: [photos-eval], images: 8, metrics: [psnr]}}
fits: {law: {metric: psnr, on: photos-eval, form: semilog}}
"""


def main() -> None:
    sweepctl = [str(Path(sys.executable).with_name("sweepctl"))]
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if "SWEEPCTL" not in key}
        Path(folder, "small.yaml").write_text(STUDY)

        def call(*words: str) -> float:
            started = time.perf_counter()
            subprocess.run(
                [*sweepctl, *words], cwd=folder, env=environment, check=True, capture_output=True
            )
            return time.perf_counter() - started

        call("run", "small.yaml", "--cluster", "inline")
        status = ["status", "small"]
        for words in (["--help"], ["status"], status, [*status, "--fits"], ["results", "small"]):
            times = sorted(call(*words) for _ in range(10))
            print(
                f"sweepctl {' '.join(words):<16} median {statistics.median(times):.2f} s, "
                f"fastest {times[0]:.2f} s, slowest {times[-1]:.2f} s"
            )


if __name__ == "__main__":
    main()
