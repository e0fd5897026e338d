"""Do two revisions train the same bytes? 20 steps of stage 1, stage 2 and a DiT, hashed.

    python bench/same_weights.py             # this working tree
    python bench/same_weights.py --root DIR  # another checkout, in the environment of this one

One small study with every kind of term is run through `sweepctl run`, in one process and one
thread. Printed is one SHA-256 per stage, over names, shapes and bytes of the weights (the record
inside the file holds times, so the file itself is not hashed). The same bytes are promised on one
machine only: compare two checkouts on the same one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

STUDY = """\
format: 1
study: same-weights
axes:
  tokenizer.lengths: [[], [2, 4]]
data: {train: photos-train, resolution: 32, images: 256}
tokenizer: {encoder: nano, decoder: nano, p: 16, c: 4}
stages:
  stage1:
    steps: 20
    batch: 8
    precision: fp32
    ema: 0.9
    optimiser: {lr: 1e-3}
    loss: {pixel: charbonnier, kl: 1e-3, lpips: 0.1, lpips_net: alex, ssim: 0.1}
  stage2:
    steps: 20
    batch: 8
    precision: fp32
    discriminator_width: 0.0625
    loss: {lpips: 0.1, lpips_net: alex}
    adversarial: {weight: 0.1, ramp: 5, r1: 0.1, lecam: 1e-3, adaptive: true}
  dit: {steps: 20, batch: 8, size: micro, precision: fp32}
evaluate:
  reconstruction: {on: [photos-eval], images: 64, metrics: [psnr, ssim, rfd_lite0]}
  generation: {on: [photos-eval], images: 16, metrics: [gfd_lite0], cfg: 1.5, steps: 4}
"""


def weights_sha256(file: Path) -> str:
    """SHA-256 over names, shapes and bytes of every tensor in a file."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tensor.shape} {tensor.dtype}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "study.yaml").write_text(STUDY)
        subprocess.run(
            [
                *(sys.executable, "-c", "from sweepctl.cli import main; main()"),
                *("run", "study.yaml", "--quiet"),
                *("--cluster", "inline", "--threads", "1", "--device", "cpu"),
            ],
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": str(root)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for folder in sorted((Path(scratch) / "runs").iterdir()):
            if (folder / "weights.safetensors").is_file():
                print(folder.name, weights_sha256(folder / "weights.safetensors"))


if __name__ == "__main__":
    main()
