"""Do all stages work on real data? Stage 1, stage 2, latents and DiT on photos, stage 1 on clips.

    python bench/stages.py --out /tmp/stages [--only adversary generate clips] [--docs docs]

Trains small models from nothing (about 15 minutes on one core, no GPU), measures what each stage
should change, and prints a line for each measurement: reconstructions before and after stage 2,
Frechet distances of generated samples and of decoded noise, clips before and after training. With
--docs it writes the picture sheets of docs/models.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vitok_core.data import PICTURES, SampleSet, open_prepared, prepare
from vitok_core.dit import load_dit
from vitok_core.evaluate import reconstruct
from vitok_core.features import feature_network
from vitok_core.generate import sample
from vitok_core.latents import compute_latents, open_latents
from vitok_core.metrics import frechet_distance
from vitok_core.settings import Adversarial, DiTTraining, Loss, Optimiser, Sampling, Stage1, Stage2
from vitok_core.spec import DiTSpec, TokenizerSpec
from vitok_core.tokenizer import ViTok, from_uint8, load_tokenizer, save_tokenizer, to_uint8
from vitok_core.train import Progress, train_dit, train_stage1, train_stage2

PHOTOS = TokenizerSpec(encoder="pico", decoder="pico", p=8, c=8, resolution=32)
BLURRY = TokenizerSpec(encoder="pico", decoder="micro", p=8, c=2, resolution=32)
"""E = 32 and no perceptual loss: stage 1 leaves it blurry, so that stage 2 has something to add."""
CLIPS = TokenizerSpec(encoder="nano", decoder="nano", q=4, p=8, c=16, resolution=32, frames=8)
LOSS = Loss(lpips=0.1, lpips_net="alex", kl=1e-4)
GENERATED = 900
SCALE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for data and weights")
    parser.add_argument("--docs", type=Path, help="folder for the picture sheets")
    parser.add_argument("--only", nargs="+", choices=("adversary", "generate", "clips"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    wanted = given.only or ["adversary", "generate", "clips"]
    if "adversary" in wanted:
        adversary(given.out, given.docs)
    if "generate" in wanted:
        generate(given.out, given.docs)
    if "clips" in wanted:
        clips(given.out, given.docs)


def data(out: Path, name: str, images: int, frames: int = 1) -> SampleSet:
    folder = out / f"{name}-{images}-{frames}"
    if not (folder / "labels.npy").exists():
        prepare(name, resolution=32, images=images, frames=frames, folder=folder)
    return open_prepared(folder)


def adversary(out: Path, docs: Path | None) -> None:
    """Stage 1, then stage 2 against going on as long without a discriminator."""
    train, held_out = data(out, "photos-train", 4096), data(out, "photos-eval", 1024)
    loss = Loss(lpips=0.0, kl=1e-4)
    config = Stage1(precision="fp32", steps=1500, batch=16, optimiser=Optimiser(lr=2e-3), loss=loss)
    with timed("blurry stage 1, 1500 steps"):
        first = train_stage1(BLURRY, config, train, out / "blurry", progress=told)
    measured("blurry stage 1", first.weights, held_out, out / "blurry")
    for name, weight in (("without discriminator", 0.0), ("stage 2", 0.01)):
        second = Stage2(
            precision="fp32",
            steps=3000,
            batch=16,
            optimiser=Optimiser(lr=5e-4),
            discriminator=Optimiser(lr=1e-3, betas=(0.5, 0.99), warmup=0.025, schedule="constant"),
            discriminator_width=1 / 16,
            ema=0.998,
            loss=loss,
            adversarial=Adversarial(weight=weight, start=300, ramp=600),
        )
        folder = out / name.replace(" ", "-")
        with timed(f"{name}, 3000 steps"):
            result = train_stage2(first.weights, second, train, folder, progress=told)
        for event in result.events:
            print(f"  event {event.kind} at step {event.step}: {event.text}")
        measured(name, result.weights, held_out, folder)
    if docs is not None:
        rows = [np.load(out / "blurry" / "originals.npy")]
        for name in ("without-discriminator", "stage-2"):
            rows.append(np.load(out / name / "reconstructions.npy"))
        picture(np.stack(rows)[:, :12], docs / "stages-adversary.png")


def generate(out: Path, docs: Path | None) -> None:
    """Latents and a small DiT for flow matching: samples by class, against decoded noise."""
    train, held_out = data(out, "photos-train", 4096), data(out, "photos-eval", 1024)
    first = Stage1(precision="fp32", steps=1500, batch=32, optimiser=Optimiser(lr=1e-3), loss=LOSS)
    with timed("stage 1, 1500 steps"):
        trained = train_stage1(PHOTOS, first, train, out / "stage1", progress=told)
    measured("stage 1", trained.weights, held_out, out / "stage1")
    compute_latents(
        load_tokenizer(trained.weights),
        train,
        out / "latents",
        normalisation="per-channel",
        flip=True,
    )
    latents = open_latents(out / "latents")
    tokenizer = load_tokenizer(latents.weights)
    spec = DiTSpec.for_tokenizer(tokenizer.spec, size="micro", classes=len(PICTURES), target="flow")
    config = DiTTraining(
        precision="fp32",
        steps=2000,
        batch=64,
        ema=0.995,
        optimiser=Optimiser(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=0.05),
    )
    with timed("DiT, 2000 steps"):
        result = train_dit(spec, config, latents, out / "dit", progress=told)
    dit, network = load_dit(result.weights), feature_network("lite0")
    labels = np.arange(GENERATED) % len(PICTURES)
    reference = features(network, held_out.samples[:GENERATED])
    by_class = np.stack(
        [features(network, train.samples[train.labels == k][:100]).mean(0) for k in range(9)]
    )

    def line(name: str, samples: NDArray[np.uint8], *, asked: bool = True) -> None:
        found = features(network, samples)
        distances = ((found[:, None] - by_class[None]) ** 2).sum(-1)
        hits = f"{(distances.argmin(1) == labels).mean():.2f}" if asked else "-"
        distance = frechet_distance(found, reference)
        print(f"{name}: Frechet distance {distance:.0f}, nearest class is the asked one {hits}")

    noise = torch.randn(
        GENERATED,
        tokenizer.spec.tokens,
        tokenizer.spec.c,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        drawn = to_uint8(tokenizer.decode(tokenizer.denormalise(noise))).movedim(1, -1).numpy()
    line("decoded noise", drawn, asked=False)
    line("reconstructions", roundtrip(tokenizer, held_out.first(GENERATED)))
    for cfg in (1.0, 1.5, 2.5):
        made = sample(
            dit, tokenizer, labels, sampling=Sampling(steps=50, cfg=cfg), seed=1, batch=150
        )
        line(f"flow, Euler 50 steps, cfg {cfg}", made)
        if docs is not None and cfg == 1.5:
            picture(
                made[:108].reshape(12, 9, 32, 32, 3).swapaxes(0, 1), docs / "stages-samples.png"
            )


def clips(out: Path, docs: Path | None) -> None:
    """Stage 1 on real video: 8 frames of 32 px, four frames a token."""
    train, held_out = data(out, "clips-train", 2048, 8), data(out, "clips-eval", 128, 8)
    untrained = out / "clips-untrained.safetensors"
    torch.manual_seed(0)
    save_tokenizer(ViTok(CLIPS), untrained)
    measured("clips, untrained", untrained, held_out, out / "clips-untrained")
    config = Stage1(
        precision="fp32",
        steps=1500,
        batch=16,
        optimiser=Optimiser(lr=1e-3),
        loss=Loss(lpips=0.0),
    )
    with timed("clips, 1500 steps"):
        result = train_stage1(CLIPS, config, train, out / "clips", progress=told)
    print(f"clips: loss {result.curve[0].loss:.4f} at first, {result.loss_recent:.4f} at the end")
    measured("clips", result.weights, held_out, out / "clips")
    if docs is not None:
        pairs = [
            np.load(out / "clips" / f"{name}.npy") for name in ("originals", "reconstructions")
        ]
        # Three shots, each as a row of frames above the row of its reconstruction.
        rows = np.stack([half[k] for k in (0, 3, 5) for half in pairs])
        picture(rows, docs / "stages-clips.png")


def measured(name: str, weights: Path, held_out: SampleSet, folder: Path) -> None:
    values = reconstruct(
        load_tokenizer(weights),
        held_out,
        metrics=["psnr", "ssim", "lpips", "rfd_lite0"],
        folder=folder,
    )
    print(f"{name}: " + ", ".join(f"{one.name} {one.value:.4g}" for one in values), flush=True)


def roundtrip(tokenizer: ViTok, samples: SampleSet) -> NDArray[np.uint8]:
    made = []
    for first in range(0, len(samples), 100):
        x = torch.from_numpy(samples.batch(np.arange(first, min(first + 100, len(samples)))))
        with torch.no_grad():
            made.append(to_uint8(tokenizer(from_uint8(x))[0]).movedim(1, -1).numpy())
    return np.concatenate(made)


def features(network: nn.Module, samples: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [
        network(torch.from_numpy(np.ascontiguousarray(samples[k : k + 100].transpose(0, 3, 1, 2))))
        for k in range(0, len(samples), 100)
    ]
    return torch.cat(parts).numpy()


def picture(rows: NDArray[np.uint8], path: Path) -> None:
    """Rows (R, N, H, W, 3) of equally large pictures as one PNG."""
    count, across, side = rows.shape[:3]
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(count * side, across * side, 3)
    size = (sheet.shape[1] * SCALE, sheet.shape[0] * SCALE)
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


def told(at: Progress) -> None:
    if at.step % 500 == 0:
        print(f"  step {at.step}: loss {at.loss:.4f}, {at.samples_per_s:.0f} samples/s", flush=True)


class timed:
    """Say how long a stretch took."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        print(f"{self.what}: {time.perf_counter() - self.began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
