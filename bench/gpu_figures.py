"""The figures of bench/gpu.py: peaks of the device, steps of every training, checkpoints, sampling.

Each part is a function of a `Place` (device, size, time left) and of `tell`, which it calls with
each finding as soon as it is known. Trainings are the library's own: they are timed from outside,
by the function that they ask before every step whether to stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import gpu_plain
import gpu_trainings
import numpy as np
import torch

from vitok_core.data import SampleSet
from vitok_core.dit import DiT
from vitok_core.evaluate import reconstruct
from vitok_core.generate import sample
from vitok_core.latents import compute_latents, open_latents
from vitok_core.settings import (
    Adversarial,
    DiTTraining,
    Loss,
    Run,
    Sampling,
    Stage1,
    Stage2,
)
from vitok_core.spec import DEVICES, DiTSpec, Flops, Memory, TokenizerSpec, least_seconds
from vitok_core.tokenizer import Normalisation, ViTok, save_tokenizer
from vitok_core.train import train_dit, train_stage1, train_stage2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how large everything is measured.

    Attributes:
        device: "cuda" or "cpu".
        toy: whether sizes are those of a test of this script.
        compiles: whether compiled rows are measured; on a CPU they take minutes.
        peaks: measured FLOP/s by precision; empty until they are measured.
        ends: when the part has to be done, by `time.monotonic`.
    """

    device: str
    toy: bool
    compiles: bool
    peaks: Mapping[str, float]
    ends: float

    def left(self) -> float:
        """Seconds until this part is killed."""
        return self.ends - time.monotonic()

    def tokenizer(self, p: int) -> TokenizerSpec:
        """S-B/p at 256 px, or a toy."""
        if self.toy:
            return dataclasses.replace(gpu_trainings.SPEC, p=p)
        return TokenizerSpec(encoder="S", decoder="B", p=p, c=16, resolution=256)

    def sync(self) -> None:
        """Wait until the device has done everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_bytes(self) -> int | None:
        """Most memory since `forget`; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def forget(self) -> None:
        """Give memory back, and measure the peak from here on."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def micro_batch(self, memory: Memory, most: int) -> int:
        """The largest power of two up to `most` that fits in 0.8 of the free memory."""
        if self.toy:
            return 2
        free = int(0.8 * torch.cuda.mem_get_info()[0])
        while most > 1 and memory.bytes(most, most) > free:
            most //= 2
        return most


Tell = Callable[..., None]
"""Called with the kind of a finding and its fields: prints it and keeps it in the file."""


# --- steps --------------------------------------------------------------------------------------


class Enough(Exception):
    """Everything that was wanted of a training has been measured; no error."""


class Clock:
    """Times the steps of a training from outside, as its `should_stop`, and leaves it by `Enough`.

    The first step is timed alone, since it compiles; some more are warm-up; then steps are timed
    until `seconds` are over; and in a few more the calls are counted that make the CPU wait.
    """

    def __init__(self, place: Place, seconds: float) -> None:
        self.place, self.seconds, self.calls = place, seconds, 0
        self.warm, self.counted = (1, 1) if place.toy else (3, 4)
        self.first_s = self.step_s = 0.0
        self.steps = 0
        self.blocking: float | None = None
        self._counting: tuple[Any, list[Any]] | None = None
        self._count_from = 0

    def __call__(self) -> bool:
        """Called before every step."""
        self.calls += 1
        if self._counting is not None:
            if self.calls == self._count_from + self.counted:
                self._end_counting()
                raise Enough
        elif self.calls in (1, 2, 2 + self.warm):
            self.place.sync()
            now = time.perf_counter()
            if self.calls == 2:
                self.first_s = now - self._began
            self._began = now
        elif self.calls > 2 + self.warm + self.warm and (
            time.perf_counter() - self._began >= self.seconds or self.place.left() < 2
        ):
            self.place.sync()
            self.steps = self.calls - 2 - self.warm
            self.step_s = (time.perf_counter() - self._began) / self.steps
            self._begin_counting()
        return False

    def _begin_counting(self) -> None:
        caught = warnings.catch_warnings(record=True)
        seen = caught.__enter__()
        assert seen is not None
        warnings.simplefilter("always")
        self._counting, self._count_from = (caught, seen), self.calls
        if self.place.device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")

    def _end_counting(self) -> None:
        assert self._counting is not None
        caught, seen = self._counting
        if self.place.device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
            waits = sum("synchronizing" in str(one.message) for one in seen)
            self.blocking = waits / self.counted
        caught.__exit__(None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A training whose steps are timed.

    Attributes:
        name: in the table.
        flops: of one step.
        memory: in closed form.
        batch: samples of a step, all in memory together.
        train: runs it until its `should_stop` raises.
    """

    name: str
    flops: Flops
    memory: Memory
    batch: int
    train: Callable[[Path, Callable[[], bool]], object]


def row(place: Place, tell: Tell, case: Case, label: str, seconds: float = 5.0) -> None:
    """Measure one training and tell its row; an error is a row, too."""
    place.forget()
    clock = Clock(place, 0.2 if place.toy else seconds)
    try:
        with tempfile.TemporaryDirectory() as folder:
            case.train(Path(folder) / "training", clock)
    except Enough:
        told(place, tell, case, label, clock)
    except Exception as error:  # noqa: BLE001  # the other rows are measured
        tell("row", case=case.name, row=label, error=f"{type(error).__name__}: {error}")
        traceback.print_exc()


def told(place: Place, tell: Tell, case: Case, label: str, clock: Clock) -> None:
    """Tell a row from what a clock has seen."""
    counted = case.memory.fixed + case.batch * (case.memory.per_row + case.memory.per_sample)
    step_s = clock.step_s
    tell(
        "row",
        case=case.name,
        row=label,
        batch=case.batch,
        step_s=step_s,
        images_per_s=case.batch / step_s,
        mfu_sheet=share(case.flops, step_s, sheet_peaks(place)),
        mfu_measured=share(case.flops, step_s, place.peaks),
        peak_bytes=place.peak_bytes(),
        closed_form_bytes=counted,
        blocking_per_step=clock.blocking,
        first_step_s=clock.first_s,
        steps=clock.steps,
    )


def share(flops: Flops, seconds: float, peaks: Mapping[str, float]) -> float | None:
    """MFU: least time at the peaks over the time taken; None where no peaks are known."""
    return least_seconds(flops, peaks) / seconds if peaks else None


def sheet_peaks(place: Place) -> Mapping[str, float]:
    """What the data sheet of the device says; nothing where there is none."""
    if place.device != "cuda":
        return {}
    known = DEVICES.get(torch.cuda.get_device_name())
    return {} if known is None else known.peaks


def pictures(side: int, count: int) -> SampleSet:
    """Random pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return SampleSet(samples=pixels, labels=np.arange(count) % 3)


NO_CHECKPOINT = 10.0**6


def run_of(place: Place, checkpoint_s: float = NO_CHECKPOINT) -> Run:
    """How trainings are run here: all samples of a step together."""
    return Run(device=place.device, checkpoint_s=checkpoint_s)


# --- what is switched on, one after the other ---------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One more setting that buys time.

    Attributes:
        label: in the table; what is on, with everything before it.
        networks: precision of perceptual networks and discriminator.
        repeats: whether torch is asked for kernels that repeat, `run: deterministic`.
        contiguous: whether networks are laid out as they come, not channels last.
        compiles: whether the model is compiled.
        of_networks: whether it is about these networks, which a DiT does not have.
    """

    label: str
    networks: str
    repeats: bool = False
    contiguous: bool = False
    compiles: bool = False
    of_networks: bool = False


SWITCHES = (
    Switch(label="eager, deterministic", networks="fp32", repeats=True, contiguous=True),
    Switch(label="+ not deterministic", networks="fp32", contiguous=True),
    Switch(label="+ channels last", networks="fp32", of_networks=True),
    Switch(label="+ tf32 networks", networks="tf32", of_networks=True),
    Switch(label="+ bf16 networks", networks="bf16", of_networks=True),
    Switch(label="+ compiled", networks="bf16", compiles=True),
)


def switched(
    place: Place, tell: Tell, make: Callable[[Mapping[str, Any]], Case], *, networks: bool = True
) -> None:
    """Tell one row for each switch; without `networks` those that are about the model only.

    A revision before `network_precision` has rows of the model only, so that two can be compared.
    """
    networks = networks and any(one.name == "network_precision" for one in fields(Stage1))
    for switch in SWITCHES:
        if switch.of_networks and not networks:
            continue
        if switch.compiles and not place.compiles:
            tell("note", text=f"{switch.label}: left out at toy size, see --compile")
            continue
        changes: dict[str, Any] = {"compile": switch.compiles}
        if networks:
            changes["network_precision"] = switch.networks
        gpu_trainings.repeat(switch.repeats)
        torch._dynamo.reset()
        with laid_out(contiguous=switch.contiguous):
            row(place, tell, make(changes), switch.label)


@contextlib.contextmanager
def laid_out(*, contiguous: bool) -> Iterator[None]:
    """Networks channels last, as they always are on a GPU, or as they were before that."""

    def as_it_comes(network: torch.nn.Module, device: Any) -> torch.nn.Module:
        return network.to(device)

    with contextlib.ExitStack() as stack:
        for module in ("losses", "train._discriminator") if contiguous else ():
            place = mock.patch(f"vitok_core.{module}.placed", as_it_comes, create=True)
            stack.enter_context(place)
        yield


# --- the parts ----------------------------------------------------------------------------------


def peaks(place: Place, tell: Tell) -> None:
    """How fast matrix products and copies really are."""
    side, rounds = (256, 2) if place.toy else (8192, 12)
    for name, dtype, how in (
        ("bf16", torch.bfloat16, "highest"),
        ("tf32", torch.float32, "high"),
        ("fp32", torch.float32, "highest"),
    ):
        torch.set_float32_matmul_precision(how)
        a = torch.randn(side, side, device=place.device).to(dtype)
        seconds = fastest(place, lambda a=a: a @ a, rounds)  # type: ignore[misc]
        tell("peak", precision=name, flops_per_s=2 * side**3 / seconds)
    torch.set_float32_matmul_precision("highest")
    count = 2**20 if place.toy else 2**29
    host = torch.empty(count, dtype=torch.uint8, pin_memory=place.device == "cuda")
    there = torch.empty_like(host, device=place.device)
    seconds = fastest(place, lambda: there.copy_(host, non_blocking=True), 4)
    tell("copy", what="pinned memory to the device", bytes_per_s=count / seconds)
    seconds = fastest(place, lambda: there.clone(), 4)
    tell("copy", what="inside the device, read and written", bytes_per_s=2 * count / seconds)


def fastest(place: Place, action: Callable[[], object], rounds: int) -> float:
    """Seconds of one call, the least over some bunches of calls."""
    found = []
    for _ in range(4):
        place.sync()
        began = time.perf_counter()
        for _ in range(rounds):
            action()
        place.sync()
        found.append((time.perf_counter() - began) / rounds)
    return min(found)


def stage1(p: int, place: Place, tell: Tell) -> None:
    """Stage 1 of S-B/p: KL, l2 and LPIPS through VGG, as the paper's."""
    spec = place.tokenizer(p)
    batch = place.micro_batch(Stage1().memory(spec), 128)
    data = pictures(spec.resolution, 2 * batch)
    name = f"stage 1 S-B/{p}"

    def case(changes: Mapping[str, Any]) -> Case:
        config = Stage1(batch=batch, **changes)
        return Case(
            name=name,
            flops=dataclasses.replace(config, steps=1).flops(spec),
            memory=config.memory(spec),
            batch=batch,
            train=lambda folder, stop: train_stage1(
                spec, config, data, folder, run=run_of(place), should_stop=stop
            ),
        )

    switched(place, tell, case)
    plain_rows(place, tell, case({}), lambda: gpu_plain.Tokenizing(spec, batch, place.device))


def plain_rows(
    place: Place, tell: Tell, case: Case, make: Callable[[], gpu_plain.Training]
) -> None:
    """The same size as a plain loop, eager and compiled, in the place of the training."""
    gpu_trainings.repeat(False)
    for label, compiles in (("plain loop, eager", False), ("plain loop, compiled", True)):
        if compiles and not place.compiles:
            continue
        torch._dynamo.reset()

        def train(folder: Path, stop: Callable[[], bool], compiles: bool = compiles) -> None:
            gpu_plain.loop(make(), stop, compiles=compiles)

        row(place, tell, dataclasses.replace(case, train=train), f"{label} ({gpu_plain.BLOCKS})")


def stage2(place: Place, tell: Tell) -> None:
    """Stage 2 of S-B/16: the decoder against the discriminator, LPIPS on."""
    spec = place.tokenizer(16)
    settings: dict[str, Any] = {"steps": 10**5, "adversarial": Adversarial(ramp=1)}
    if place.toy:
        settings["discriminator_width"] = 1 / 64
    batch = place.micro_batch(Stage2(**settings).memory(spec), 64)
    data = pictures(spec.resolution, 2 * batch)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.safetensors"
        save_tokenizer(ViTok(spec), first)

        def case(changes: Mapping[str, Any]) -> Case:
            config = Stage2(batch=batch, **settings, **changes)
            return Case(
                name="stage 2 S-B/16",
                flops=dataclasses.replace(config, steps=1).flops(spec),
                memory=config.memory(spec),
                batch=batch,
                train=lambda folder, stop: train_stage2(
                    first, config, data, folder, run=run_of(place), should_stop=stop
                ),
            )

        switched(place, tell, case)


def generator(place: Place) -> tuple[TokenizerSpec, DiTSpec]:
    """DiT-L over 256 tokens of 16 channels, and the tokenizer of its codes."""
    spec = place.tokenizer(16)
    size = "nano" if place.toy else "L"
    classes = 3 if place.toy else 1000
    return spec, DiTSpec.for_tokenizer(spec, size=size, classes=classes, learn_sigma=True)


def dit(place: Place, tell: Tell) -> None:
    """DiT-L, learned sigma, over stored latents."""
    tokenizer, spec = generator(place)
    batch = place.micro_batch(DiTTraining().memory(spec), 256)
    with tempfile.TemporaryDirectory() as folder:
        latents = Path(folder) / "latents"
        model, data = ViTok(tokenizer), pictures(tokenizer.resolution, 2 * batch)
        compute_latents(model, data, latents, normalisation="none", flip=True, device=place.device)
        del model
        learned = open_latents(latents)

        def case(changes: Mapping[str, Any]) -> Case:
            config = DiTTraining(steps=10**5, batch=batch, **changes)
            return Case(
                name=f"DiT-{spec.size}",
                flops=dataclasses.replace(config, steps=1).flops(spec),
                memory=config.memory(spec),
                batch=batch,
                train=lambda folder, stop: train_dit(
                    spec, config, learned, folder, run=run_of(place), should_stop=stop
                ),
            )

        switched(place, tell, case, networks=False)
        plain_rows(place, tell, case({}), lambda: gpu_plain.Generating(spec, batch, place.device))


def checkpoints(place: Place, tell: Tell) -> None:
    """What checkpoints take from the steps of stage 1: the settings' own cadence, and often."""
    spec = place.tokenizer(16)
    batch = place.micro_batch(Stage1().memory(spec), 16)
    config = Stage1(batch=batch, loss=Loss(lpips=0.0), ema=0.999)
    data = pictures(spec.resolution, 2 * batch)
    seconds = 1.0 if place.toy else 8.0
    for every in (NO_CHECKPOINT, seconds / 4):
        stamps: list[float] = []

        def stop() -> bool:
            place.sync()
            stamps.append(time.perf_counter())  # noqa: B023  # called in this round only
            if stamps[-1] - stamps[0] > seconds:  # noqa: B023
                raise Enough
            return False

        with tempfile.TemporaryDirectory() as folder:
            with contextlib.suppress(Enough):
                train_stage1(
                    spec, config, data, Path(folder), run=run_of(place, every), should_stop=stop
                )
            written = sorted(Path(folder).glob("checkpoints/*.pt"))
            size = written[-1].stat().st_size if written else 0
        steps = np.diff(stamps)[2:]
        lost = float(np.maximum(steps - np.median(steps), 0).sum())
        tell(
            "checkpoint",
            every_s=every,
            size_bytes=size,
            steps=len(steps),
            median_step_s=float(np.median(steps)),
            longest_step_s=float(steps.max()),
            lost_share=lost / float(steps.sum()),
        )


def sampling(place: Place, tell: Tell) -> None:
    """50 steps of the sampler with guidance, and the decoder."""
    tokenizer, spec = generator(place)
    count = 4 if place.toy else 64
    c = tokenizer.c
    for target, name in (("eps", "DDIM"), ("flow", "Euler")):
        torch.manual_seed(0)
        model = DiT(dataclasses.replace(spec, target=target, learn_sigma=target == "eps"))
        decoder = ViTok(tokenizer)
        decoder.normalisation = Normalisation(
            mode="none", mean_C=torch.zeros(c), std_C=torch.ones(c), mean=0.0, std=1.0, samples=1
        )
        steps = 5 if place.toy else 50
        how = Sampling(cfg=1.5, steps=steps, precision="bf16")
        labels = np.arange(count) % spec.classes
        times = []
        place.forget()
        for _ in range(2):  # the first warms up
            place.sync()
            began = time.perf_counter()
            sample(model, decoder, labels, sampling=how, seed=0, batch=count, device=place.device)
            times.append(time.perf_counter() - began)
        flops = how.flops(model.spec, count)
        tell(
            "row",
            case=f"{name} {steps}, DiT-{spec.size}",
            row="bf16, guided, decoded",
            batch=count,
            step_s=times[1],
            images_per_s=count / times[1],
            mfu_sheet=share(flops, times[1], sheet_peaks(place)),
            mfu_measured=share(flops, times[1], place.peaks),
            peak_bytes=place.peak_bytes(),
            first_step_s=times[0],
        )


def evaluation(place: Place, tell: Tell) -> None:
    """Reconstructions of S-B/16 with PSNR and Inception's features; the distance is not timed."""
    spec = place.tokenizer(16)
    batch = 1 if place.toy else 64
    data, model = pictures(spec.resolution, 12 * batch), ViTok(spec)
    clock = Clock(place, 0.1 if place.toy else 4.0)
    place.forget()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        reconstruct(
            model,
            data,
            metrics=["psnr", "rfid"],
            protocol_name="vitok",
            folder=Path(folder),
            device=place.device,
            batch=batch,
            should_stop=clock,
        )
    tell(
        "row",
        case="evaluation of S-B/16",
        row="psnr, rfid",
        batch=batch,
        step_s=clock.step_s,
        images_per_s=batch / clock.step_s,
        peak_bytes=place.peak_bytes(),
        blocking_per_step=clock.blocking,
        first_step_s=clock.first_s,
    )
