"""How fast is a training step? python bench/train.py [--full]

Times steps (forward, loss, backward, clipping, fused AdamW) of our tokenizer and of one built from
timm's EVA blocks with the same shapes (pre-norm, SwiGLU, rotary attention), interleaved in one
process, and the peak of a large matmul in the same dtype between them; then what the training loop
costs around the step, and peak memory with and without recomputed activations, a fresh process
each. Times are CPU seconds by thread, which other processes disturb least, and ratios are of steps
that ran one after the other. Needs timm.

Default: mini-mini/4 at 32 px, batch 32. --full: S-B/16 at 256 px, batch 1, besides.
Target: no slower than timm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitok_core.data import SampleSet
from vitok_core.losses import loss_networks, stage1_loss
from vitok_core.settings import Loss, Optimiser, Run, Stage1
from vitok_core.spec import SIZES, Precision, TokenizerSpec, parse_variant, training_flops
from vitok_core.tokenizer import Posterior, ViTok
from vitok_core.train import train_stage1
from vitok_core.train._optimise import adamw, clip_gradients
from vitok_core.train._speed import peak_memory_bytes

LOSS = Loss(lpips=0.0)
OPTIMISER = Optimiser(lr=1e-4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is timed: variant, resolution, batch, timed steps."""

    variant: str
    resolution: int
    batch: int
    steps: int

    @property
    def spec(self) -> TokenizerSpec:
        variant = parse_variant(self.variant)
        return TokenizerSpec(
            encoder=variant.encoder,
            decoder=variant.decoder,
            p=variant.p,
            c=16,
            resolution=self.resolution,
        )


SMALL = Case(variant="mini-mini/4", resolution=32, batch=32, steps=6)
PAPER = Case(variant="S-B/16", resolution=256, batch=1, steps=6)


class TimmTower(nn.Module):
    """EVA blocks of the shape of a `Size`, with timm's own axial rotary table."""

    def __init__(self, name: str, side: int) -> None:
        from timm.layers import RotaryEmbeddingCat
        from timm.models.eva import EvaBlock

        super().__init__()
        size = SIZES[name]
        self.blocks = nn.ModuleList(
            EvaBlock(
                size.width,
                size.heads,
                qkv_bias=False,
                mlp_ratio=(size.hidden + 0.5) / size.width,  # it truncates ratio * width
                swiglu_mlp=True,
                num_prefix_tokens=0,
            )
            for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.width)
        self.rope = RotaryEmbeddingCat(size.head_width, in_pixels=False, feat_shape=[side, side])

    def forward(self, x_BLD: Tensor) -> Tensor:
        rope = self.rope.get_embed()
        for block in self.blocks:
            x_BLD = block(x_BLD, rope=rope)
        return self.norm(x_BLD)


class TimmTokenizer(nn.Module):
    """Encoder, Gaussian code and decoder around timm's blocks, as in `ViTok`."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        encoder, decoder, p = SIZES[spec.encoder].width, SIZES[spec.decoder].width, spec.p
        self.side = spec.resolution // p
        self.embed = nn.Conv2d(3, encoder, p, stride=p)
        self.encoder = TimmTower(spec.encoder, self.side)
        self.to_moments = nn.Linear(encoder, 2 * spec.c)
        self.from_code = nn.Linear(spec.c, decoder)
        self.decoder = TimmTower(spec.decoder, self.side)
        self.output = nn.ConvTranspose2d(decoder, 3, p, stride=p)

    def forward(self, x: Tensor, noise_BLC: Tensor) -> tuple[Tensor, Posterior]:
        tokens_BLD = self.embed(x).flatten(2).transpose(1, 2)
        mean, logvar = self.to_moments(self.encoder(tokens_BLD)).float().chunk(2, dim=-1)
        posterior = Posterior(mean=mean, logvar=logvar.clamp(-30, 20))
        drawn = self.decoder(self.from_code(posterior.sample(noise_BLC)))
        grid = drawn.transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.output(grid), posterior


def stepper(model: nn.Module, case: Case, precision: Precision) -> Callable[[], None]:
    """One training step of a model on fixed samples."""
    spec = case.spec
    source = torch.Generator().manual_seed(0)
    x = torch.rand((case.batch, 3, spec.resolution, spec.resolution), generator=source) * 2 - 1
    noise_BLC = torch.randn((case.batch, spec.tokens, spec.c), generator=source)
    optimiser = adamw(model, OPTIMISER, torch.device("cpu"))
    networks = loss_networks(LOSS)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            x_hat, posterior = model(x, noise_BLC)
        total, _ = stage1_loss(LOSS, x, x_hat, posterior, networks)
        total.backward()
        clip_gradients(model.parameters(), OPTIMISER)
        optimiser.step()

    return step


def matmul_flops(precision: Precision) -> float:
    """FLOP/s of one large matmul."""
    side = 1536
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    a, b = torch.ones(side, side, dtype=dtype), torch.ones(side, side, dtype=dtype)
    a @ b
    return 2 * side**3 / seconds(lambda: a @ b)


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of this process by thread: wall time, without what neighbours took away."""
    began = time.process_time()
    action()
    return (time.process_time() - began) / torch.get_num_threads()


def compare(case: Case, precision: Precision) -> None:
    """Print one row: step times, ratio, achieved and peak FLOP/s."""
    torch.manual_seed(0)
    ours = stepper(ViTok(case.spec), case, precision)
    theirs = stepper(TimmTokenizer(case.spec), case, precision)
    ours(), theirs()
    times: list[tuple[float, float, float]] = []
    for index in range(case.steps):
        # Each goes first in turn: what ran before leaves its caches behind.
        if index % 2:
            a, b = seconds(ours), seconds(theirs)
        else:
            b, a = seconds(theirs), seconds(ours)
        times.append((a, b, matmul_flops(precision)))
    ours_s, theirs_s = (statistics.median(row[k] for row in times) for k in (0, 1))
    ratio = statistics.median(b / a for a, b, _ in times)
    peak = max(row[2] for row in times)
    flops = training_flops(case.spec, case.batch)
    print(
        f"{case.variant:12} {precision:5} {ours_s:9.4f} s {theirs_s:9.4f} s {ratio:8.2f} x"
        f"{flops / ours_s / 1e9:10.1f} {peak / 1e9:10.1f} {flops / ours_s / peak:8.0%}"
    )


def samples_of(case: Case) -> SampleSet:
    pixels = np.random.default_rng(0).integers(
        0, 256, (64, case.resolution, case.resolution, 3), np.uint8
    )
    return SampleSet(samples=pixels, labels=np.zeros(64, np.int64))


def loop_cost(case: Case) -> None:
    """Print how long a step of the training loop takes, against the bare step."""
    torch.manual_seed(0)
    bare = stepper(ViTok(case.spec), case, "fp32")
    bare()
    samples, ratios = samples_of(case), []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(3):
            config = Stage1(
                precision="fp32",
                steps=case.steps,
                batch=case.batch,
                optimiser=OPTIMISER,
                loss=LOSS,
                seed=index,
            )
            run = partial(train_stage1, case.spec, config, samples, Path(folder) / str(index))
            ratios.append(seconds(run) / seconds(lambda: [bare() for _ in range(case.steps)]))
    print(
        f"{case.variant:12} fp32  the whole loop takes {statistics.median(ratios):.2f} bare steps"
    )


def train_once(case: Case, *, recompute: bool) -> None:
    """Train two steps in this process and print its memory: before, and most."""
    samples = samples_of(case)
    config = Stage1(precision="fp32", steps=2, batch=case.batch, optimiser=OPTIMISER, loss=LOSS)
    before = peak_memory_bytes(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        result = train_stage1(
            case.spec, config, samples, Path(folder), run=Run(recompute_activations=recompute)
        )
    print(json.dumps([before, result.peak_memory_bytes]))


def memory(case: Case, threads: int) -> None:
    """Print peak memory with and without recomputed activations."""
    for recompute in (False, True):
        asked = [case.variant, str(case.resolution), str(case.batch), str(int(recompute))]
        done = subprocess.run(
            [sys.executable, __file__, "--threads", str(threads), "--child", *asked],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        )
        before, peak = json.loads(done.stdout)
        how = "recomputed activations" if recompute else "kept activations"
        print(
            f"{case.variant:12} fp32  batch {case.batch}, {how:22} peak {peak / 2**20:7.0f} MiB, "
            f"{(peak - before) / 2**20:7.0f} MiB above the empty process"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="S-B/16 at 256 px besides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=4, metavar=("V", "R", "B", "RECOMPUTE"), help="internal")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.child is not None:
        variant, resolution, batch, recompute = given.child
        case = Case(variant=variant, resolution=int(resolution), batch=int(batch), steps=2)
        train_once(case, recompute=recompute == "1")
        return
    warnings.filterwarnings("ignore", module="timm")
    cases = [SMALL, PAPER] if given.full else [SMALL]
    print(f"torch {torch.__version__}, {given.threads} threads; FLOP/s in units of 1e9")
    print(f"{'':18} {'ours':>11} {'timm':>11} {'timm/ours':>10}", end="")
    print(f"{'achieved':>10} {'matmul':>10} {'share':>8}")
    for case in cases:
        for precision in ("fp32", "bf16"):
            compare(case, precision)
    loop_cost(SMALL)
    memory(SMALL, given.threads)
    if given.full:
        memory(Case(variant="S-B/16", resolution=256, batch=4, steps=2), given.threads)


if __name__ == "__main__":
    main()
