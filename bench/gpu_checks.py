"""Every CUDA path of the library, each checked by one function that needs nothing but the library.

`CHECKS` has them by name. `tests/test_gpu.py` runs each as a test marked `gpu`, `bench/gpu.py` runs
them without pytest. A check gets an empty folder and a device, raises where something is wrong, and
says in one line what it found. Those that mean something without a GPU run on "cpu" too, so that
the checks themselves are tested everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import os
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import stand_ins
import torch
from gpu_trainings import (
    DIT,
    PLAIN,
    SPEC,
    STEPS,
    TRAININGS,
    latents,
    near,
    repeating,
    same_bytes,
    samples,
    stage1,
    weights_apart,
)

from sweepctl.cluster._devices import child_variables, find_gpus, torch_build
from vitok_core.dit import DiT
from vitok_core.errors import NonFiniteError, Stopped
from vitok_core.evaluate import reconstruct
from vitok_core.generate import sample_codes
from vitok_core.settings import Loss, Run, Sampling, Stage1
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok

ROUNDING = 2e-3
"""Largest difference of weights after a few steps, relative to the largest weight."""

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        run: (empty folder, device) to a line about what was found; raises where it is wrong.
        gpu_only: whether it means nothing without a GPU.
    """

    run: Callable[[Path, str], str]
    gpu_only: bool = False


# --- devices ------------------------------------------------------------------------------------


def fork_after_import(folder: Path, device: str) -> str:
    """A server imports everything, then forks children that use the GPU they are given."""
    code = """
        import os, sys, pathlib
        sys.path.insert(0, BENCH)
        import gpu_checks, torch
        assert not torch.cuda.is_initialized(), "importing the library has initialized CUDA"

        def child(visible, action):
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            code = 1
            try:
                if visible is not None:
                    os.environ["CUDA_VISIBLE_DEVICES"] = visible
                torch.set_num_threads(1)
                action()
                code = 0
            finally:
                os._exit(code)

        def train():
            assert DEVICE == "cpu" or torch.cuda.device_count() == 1, torch.cuda.device_count()
            result = gpu_checks.stage1(pathlib.Path(FOLDER) / str(os.getpid()), DEVICE, steps=2)
            assert result.steps == 2

        def none_visible():
            assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
            try:
                torch.zeros(1, device="cuda")
            except (RuntimeError, AssertionError):
                return
            raise SystemExit("a child without a GPU computed on one")

        for visible in VISIBLE:
            assert child(visible, train) == 0, f"the child with {visible!r} failed"
        assert child("", none_visible) == 0, "a child without a GPU found one"
    """
    visible: list[str | None] = [None]
    if device != "cpu":
        visible = ["0", *(one.id for one in find_gpus(os.environ, build=torch_build()).gpus)]
    given = {"BENCH": str(Path(__file__).parent), "FOLDER": str(folder), "DEVICE": device}
    said = "".join(f"{name} = {value!r}\n" for name, value in {**given, "VISIBLE": visible}.items())
    _python(said + textwrap.dedent(code), CUDA_VISIBLE_DEVICES=None)
    return f"children with CUDA_VISIBLE_DEVICES {visible} trained, one with '' saw no GPU"


def _python(code: str, **environ: str | None) -> str:
    """What a fresh interpreter prints; its error is this check's."""
    child = _started(code, **environ)
    try:
        said, _ = child.communicate(timeout=100)
    finally:
        child.kill()
    assert child.returncode == 0, said[-1500:]
    return said


def _started(code: str, **environ: str | None) -> subprocess.Popen[str]:
    """A fresh interpreter with some variables set, or unset by None."""
    kept = {name: value for name, value in os.environ.items() if name not in environ}
    kept |= {name: value for name, value in environ.items() if value is not None}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**kept, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def found_without_touching(folder: Path, device: str) -> str:
    """The GPUs that workers find without CUDA are those that CUDA finds, by the same ids."""
    found = find_gpus(os.environ, build=torch_build())
    count = torch.cuda.device_count()
    assert len(found.gpus) == count, f"{len(found.gpus)} were found, CUDA has {count}: {found}"
    for gpu in found.gpus:
        variables = child_variables([gpu.id], os.environ, build=torch_build())
        code = "import torch; print(torch.cuda.device_count(), torch.cuda.get_device_name())"
        said = _python(code, **variables).strip()
        assert said == f"1 {gpu.name}" or not gpu.name, f"{gpu}: a child with it sees {said}"
    return ", ".join(f"{gpu.name or 'no name'} {gpu.id}" for gpu in found.gpus)


def copies_to_the_device(folder: Path, device: str) -> str:
    """Losses with pinned, non-blocking copies and mirroring are those of the CPU."""
    here = stage1(folder / "device", device, spec=PLAIN, steps=30)
    there = stage1(folder / "cpu", "cpu", spec=PLAIN, steps=30)
    gap = 0.0
    for left, right in zip(here.curve, there.curve, strict=True):
        near(left.loss, right.loss, 1e-3, f"loss at step {left.step}, {device} and cpu")
        gap = max(gap, abs(left.loss / right.loss - 1))
    return f"30 steps of stage 1: losses within {gap:.1e} of the CPU's"


def one_process_of_nccl(folder: Path, device: str) -> str:
    """A process group on the GPU: with one GPU one rank, with two or more two ranks."""
    count = min(torch.cuda.device_count(), 2) if device != "cpu" else 2
    code = f"""
        import os, sys, pathlib
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import gpu_checks, torch
        from vitok_core.train import distributed
        torch.set_num_threads(1)
        folder = pathlib.Path({str(folder / "ranks")!r})
        with distributed({device!r}) as place:
            gpu_checks.stage1(folder, str(place), spec=gpu_checks.PLAIN)
        sys.stdout.flush()
        os._exit(0)  # threads of gloo can abort an interpreter that is ending
    """
    port = _free_port()
    children = [
        _started(
            code,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(count)
    ]
    try:
        for child in children:
            said, _ = child.communicate(timeout=100)
            assert child.returncode == 0, said[-1500:]
    finally:
        for child in children:
            child.kill()
    alone = stage1(folder / "alone", device, spec=PLAIN)
    gap = weights_apart(folder / "ranks" / "weights.safetensors", alone.weights)
    assert gap < ROUNDING, f"weights of {count} ranks and of one process are {gap:.2g} apart"
    return f"{count} rank(s), weights within {gap:.1e} of one process without a group"


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# --- trainings ----------------------------------------------------------------------------------


def trainings(folder: Path, device: str) -> str:
    """All three trainings, in both precisions, with everything that they can have."""
    said = []
    for name, train in TRAININGS.items():
        for precision in ("fp32", "bf16"):
            result = train(folder / f"{name} {precision}", device, precision=precision)
            assert result.steps == STEPS and math.isfinite(result.loss), name
            said.append(f"{name} {precision} {result.loss:.3f}")
        near(*(float(line.rsplit(" ", 1)[1]) for line in said[-2:]), rel=0.05, what=f"{name}, bf16")
    return "losses " + ", ".join(said)


def perceptual_loss(folder: Path, device: str) -> str:
    """Stage 1 through VGG: convolutions of a frozen network, and their gradients."""
    stand_ins.stand_in_networks()
    spec = dataclasses.replace(PLAIN, resolution=32)
    results = [
        stage1(folder / one, one, spec=spec, steps=3, batch=2, loss=Loss(kl=0.0, lpips=1.0))
        for one in dict.fromkeys((device, "cpu"))
    ]
    near(results[0].loss, results[-1].loss, 2e-2, "loss through VGG, device and cpu")
    return f"loss {results[0].loss:.4f}, on the CPU {results[-1].loss:.4f}"


def stop_and_resume(folder: Path, device: str) -> str:
    """A training that was stopped ends with the weights of one that was not."""
    said = []
    for name, train in TRAININGS.items():
        whole = train(folder / f"{name} whole", device)
        place = folder / f"{name} stopped"
        try:
            train(place, device, stop=5)
        except Stopped:
            pass
        else:
            raise AssertionError(f"{name} did not stop")
        resumed = train(place, device)
        assert resumed.resumed_from == 5, f"{name} was resumed from {resumed.resumed_from}"
        gap = weights_apart(whole.weights, resumed.weights)
        assert gap < ROUNDING, f"{name}: stopped and resumed, weights are {gap:.2g} apart"
        said.append(f"{name} {gap:.1e}")
    return "weights apart after stop and resume: " + ", ".join(said)


def same_bytes_when_deterministic(folder: Path, device: str) -> str:
    """With deterministic kernels what has no backward pass repeats to the byte; trainings may."""
    same = {}
    with repeating():
        one, other = latents(folder / "one", device), latents(folder / "other", device)
        for name in ("mean.npy", "logvar.npy"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), f"{name} differs"
        made = [_codes("ddim", device).tobytes() for _ in range(2)]
        assert made[0] == made[1], "the bytes of samples differ"
        for name, train in TRAININGS.items():
            whole = train(folder / f"{name} whole", device)
            with contextlib.suppress(Stopped):
                train(folder / f"{name} stopped", device, stop=5)
            resumed = train(folder / f"{name} stopped", device)
            same[name] = same_bytes(whole.weights, resumed.weights)
    # On GPUs the backward pass of fused attention is not promised to repeat.
    assert device != "cpu" or all(same.values()), f"the bytes of trainings differ: {same}"
    said = ", ".join(f"{name} {'the same' if ok else 'others'}" for name, ok in same.items())
    return f"bytes of latents and samples: the same; of weights after stop and resume: {said}"


def not_a_number_stops(folder: Path, device: str) -> str:
    """The guard sees what is not a number on the device, and ends the training."""
    try:
        stage1(folder, device, loss=Loss(pixel_weight=1e39, lpips=0.0))
    except NonFiniteError as error:
        return str(error).partition(";")[0]
    raise AssertionError("a loss that is infinite was not noticed")


def running_out_of_memory(folder: Path, device: str) -> str:
    """A real allocator limit: the micro-batch is halved, and no number changes."""
    spec = TokenizerSpec(encoder="S", decoder="S", p=8, c=16, resolution=128, bottleneck="none")
    batch = {"spec": spec, "steps": 3, "batch": 24, "precision": "bf16"}
    total = torch.cuda.get_device_properties(0).total_memory
    _forget(device)
    small = stage1(folder / "small", device, run=Run(checkpoint_s=10**6, micro_batch=12), **batch)
    fits = torch.cuda.max_memory_reserved()
    _forget(device)
    stage1(folder / "whole", device, **batch)
    needs = torch.cuda.max_memory_reserved()
    assert needs > 1.2 * fits, f"24 samples take {needs:,} bytes, 12 take {fits:,}"
    _forget(device)
    torch.cuda.set_per_process_memory_fraction(min((fits + needs) / 2 / total, 1.0))
    try:
        halved = stage1(folder / "halved", device, **batch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert halved.micro_batch is not None and halved.micro_batch < 24, "nothing was halved"
    kinds = [event.kind for event in halved.events]
    assert "out of memory" in kinds, f"the events are {kinds}"
    near(halved.loss, small.loss, 1e-2, "loss, halved and with 12 at once from the start")
    return (
        f"24 at once need {needs / 2**20:.0f} MiB, allowed were {(fits + needs) / 2**21:.0f}: went "
        f"on with {halved.micro_batch}"
    )


def _forget(device: str) -> None:
    import gc

    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def recomputed_activations(folder: Path, device: str) -> str:
    """The same weights from less memory."""
    spec = dataclasses.replace(SPEC, encoder="S", decoder="S") if device != "cpu" else SPEC
    found = {}
    for again in (False, True):
        _forget(device)
        run = Run(checkpoint_s=10**6, recompute_activations=again)
        result = stage1(folder / str(again), device, spec=spec, run=run, steps=4)
        found[again] = (result, torch.cuda.max_memory_allocated() if device != "cpu" else 0)
    gap = weights_apart(found[False][0].weights, found[True][0].weights)
    assert gap < ROUNDING, f"weights are {gap:.2g} apart"
    if device != "cpu":
        assert found[True][1] < found[False][1], f"{found[True][1]:,} of {found[False][1]:,} bytes"
    return f"{found[True][1]:,} of {found[False][1]:,} bytes, weights {gap:.1e} apart"


def memory_within_the_closed_form(folder: Path, device: str) -> str:
    """Peak memory of a real size is at most what the closed form says, and not far below."""
    spec = TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=256)
    said = []
    for precision in ("bf16", "fp32"):
        _forget(device)
        before = torch.cuda.memory_allocated()
        stage1(folder / precision, device, spec=spec, precision=precision, steps=3, batch=16)
        peak = torch.cuda.max_memory_allocated() - before
        settings: dict[str, Any] = {"precision": precision, "loss": Loss(lpips=0.0), "ema": 0.9}
        memory = Stage1(**settings).memory(spec)
        allowed, counted = (
            memory.bytes(16, 16),
            memory.fixed + 16 * (memory.per_row + memory.per_sample),
        )
        said.append(f"{precision} {peak / 2**30:.2f} GiB of {counted / 2**30:.2f} counted")
        assert peak <= allowed, f"{said[-1]}, {allowed / 2**30:.2f} allowed"
        assert peak >= 0.5 * counted, f"{said[-1]}: the closed form is far too large"
    return ", ".join(said)


def compiled(folder: Path, device: str) -> str:
    """Compiled trainings are the eager ones but for rounding."""
    said = []
    for name, train in TRAININGS.items():
        began = time.perf_counter()
        eager = train(folder / f"{name} eager", device, steps=5)
        fast = train(folder / f"{name} compiled", device, steps=5, compile=True)
        near(eager.loss, fast.loss, 1e-2, f"{name}, eager and compiled")
        said.append(f"{name} {time.perf_counter() - began:.0f} s")
    return "same losses: " + ", ".join(said)


def blocking_reads(folder: Path, device: str) -> str:
    """No step of a training makes the CPU wait for the GPU."""
    said, most = [], 0.0
    for name, train in TRAININGS.items():
        counts = []
        for steps in (6, 16):
            torch.cuda.synchronize()
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    train(folder / f"{name} {steps}", device, steps=steps)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
            counts.append(sum("synchronizing" in str(one.message) for one in seen))
        per_step = (counts[1] - counts[0]) / 10
        most = max(most, per_step)
        said.append(f"{name} {per_step:g}")
    assert most == 0, f"blocking calls per step: {', '.join(said)}"
    return f"none in {', '.join(TRAININGS)}"


# --- after training -----------------------------------------------------------------------------


def latents_as_on_the_cpu(folder: Path, device: str) -> str:
    """Codes of the device are those of the CPU."""
    here, there = latents(folder / "device", device), latents(folder / "cpu", "cpu")
    gap = 0.0
    for name in ("mean.npy", "logvar.npy"):
        left, right = np.load(here / name), np.load(there / name)
        gap = max(gap, float(np.abs(left - right).max()))
    assert gap < 5e-3, f"codes are {gap:.2g} apart"
    return f"codes within {gap:.1e} of the CPU's"


def samples_as_on_the_cpu(folder: Path, device: str) -> str:
    """Noise is drawn on the CPU, so samples of the device are those of the CPU."""
    said = []
    for sampler in ("ddim", "ddpm"):
        here, there = _codes(sampler, device), _codes(sampler, "cpu")
        gap = float(np.abs(here - there).max() / np.abs(there).max())
        assert gap < 2e-2, f"{sampler}: codes are {gap:.2g} apart"
        said.append(f"{sampler} {gap:.1e}")
    return "codes apart: " + ", ".join(said)


def _codes(sampler: Any, device: str) -> np.ndarray[Any, Any]:
    torch.manual_seed(0)
    model = DiT(DIT)
    with torch.no_grad():
        for parameter in model.parameters():  # an untrained one predicts zeros
            parameter.add_(0.02 * torch.randn(parameter.shape))
    how = Sampling(cfg=1.5, steps=10, sampler=sampler)
    return sample_codes(model, [0, 1, 2, 0], sampling=how, seed=1, device=device, batch=3)


def reconstructions_as_on_the_cpu(folder: Path, device: str) -> str:
    """PSNR of the device is that of the CPU."""
    torch.manual_seed(0)
    tokenizer = ViTok(SPEC)
    tokenizer.normalisation = None
    values = [
        reconstruct(
            copy.deepcopy(tokenizer),
            samples(),
            metrics=["psnr"],
            folder=folder / one,
            device=one,
            batch=7,
        )[0].value
        for one in (device, "cpu")
    ]
    near(values[0], values[1], 1e-3, "PSNR, device and cpu")
    return f"PSNR {values[0]:.4f} dB, on the CPU {values[1]:.4f}"


CHECKS: dict[str, Check] = {
    "fork after import": Check(run=fork_after_import),
    "GPUs found without touching": Check(run=found_without_touching, gpu_only=True),
    "trainings": Check(run=trainings),
    "copies to the device": Check(run=copies_to_the_device),
    "stop and resume": Check(run=stop_and_resume),
    "running out of memory": Check(run=running_out_of_memory, gpu_only=True),
    "memory within the closed form": Check(run=memory_within_the_closed_form, gpu_only=True),
    "blocking reads": Check(run=blocking_reads, gpu_only=True),
    "perceptual loss": Check(run=perceptual_loss),
    "recomputed activations": Check(run=recomputed_activations),
    "latents as on the CPU": Check(run=latents_as_on_the_cpu),
    "samples as on the CPU": Check(run=samples_as_on_the_cpu),
    "reconstructions as on the CPU": Check(run=reconstructions_as_on_the_cpu),
    "not a number stops": Check(run=not_a_number_stops),
    "same bytes when deterministic": Check(run=same_bytes_when_deterministic),
    "ranks": Check(run=one_process_of_nccl),
    "compiled": Check(run=compiled, gpu_only=True),
}
"""By name, the most important first: where time runs out, the last ones are left out."""
