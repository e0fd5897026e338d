"""What runs in the processes of a test that needs several? Trainings and sums in a world of them.

As torchrun does it: every process gets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
`in_ranks` forks them from a server that has imported torch once for all tests.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitok_core.data import SampleSet, open_prepared
from vitok_core.dit import DiT
from vitok_core.errors import DataError, VitokError
from vitok_core.evaluate import measure_generation, reconstruct, reference_features
from vitok_core.generate import sample_to_file
from vitok_core.latents import compute_latents
from vitok_core.settings import Loss, Optimiser, Run, Sampling, Stage1
from vitok_core.spec import DiTSpec, TokenizerSpec
from vitok_core.tokenizer import Normalisation, ViTok
from vitok_core.train import distributed, train_stage1, world
from vitok_core.train._parallel import GradientSum
from vitok_core.train._room import Room

SPEC = TokenizerSpec(
    encoder="nano", decoder="nano", p=8, c=4, resolution=16, latent_tokens=3, lengths=(1, 3)
)
CONFIG = Stage1(
    precision="fp32",
    steps=20,
    batch=7,
    optimiser=Optimiser(lr=1e-3),
    loss=Loss(lpips=0.0),
    ema=0.9,
    seed=5,
)


def run(data: Path, folder: Path, *, stop_at: int | None, **options: Any) -> dict[str, Any]:
    """Train in this process; what came of it as plain data."""
    asked = iter(range(10**6))
    config = dataclasses.replace(CONFIG, **options.pop("config", {}))
    with distributed() as device:
        rank = world().rank
        try:
            result = train_stage1(
                SPEC,
                config,
                open_prepared(data),
                folder,
                run=Run(
                    device=str(device), checkpoint_s=10**6, micro_batch=options.get("micro_batch")
                ),
                # Only the last process is told to stop; the others must learn it from it.
                should_stop=lambda: next(asked) == stop_at and rank == world().size - 1,
            )
        except VitokError as error:
            return {"rank": rank, "error": type(error).__name__, "text": str(error)}
    return {
        "rank": rank,
        "losses": [point.loss for point in result.curve],
        "resumed_from": result.resumed_from,
        "notes": list(result.notes),
    }


def run_alike(data: Path, folder: Path) -> dict[str, Any]:
    """A training in micro-batches of 2, of any number of processes."""
    return run(data, folder, stop_at=None, micro_batch=2)


RANKS = multiprocessing.get_context("forkserver")
RANKS.set_forkserver_preload(["vitok_core.train", "vitok_core.evaluate"])


def environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun sets, and what keeps the processes of a test small."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def in_ranks(processes: int, function: Callable[..., Any], *given: Any) -> list[Any]:
    """What a function of this or a test's module returns or raises in each of several processes."""
    port, started = free_port(), []
    for rank in range(processes):
        here, there = RANKS.Pipe(duplex=False)
        variables = environment(rank, processes, port)
        process = RANKS.Process(target=_rank, args=(there, variables, function, given))
        process.start()
        there.close()
        started.append((process, here))
    answers = []
    for process, here in started:
        try:
            answers.append(here.recv() if here.poll(120) else "silent")
        except EOFError:
            answers.append("killed")
        process.join(20)
        assert not process.is_alive()
    return answers


def _rank(
    there: Connection, variables: dict[str, str], function: Callable[..., Any], given: Any
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    try:
        answer = function(*given)
    except Exception as error:  # noqa: BLE001  # the test looks at it
        answer = error
    there.send(answer)
    # Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291).
    os._exit(0)


def wait_for_a_dead_one(victim: int, numbers: int) -> float | str:
    """Seconds after which a process learns that another was killed in the middle of a sum."""
    with distributed():
        values = torch.zeros(numbers)
        torch.distributed.all_reduce(values)
        began = time.monotonic()
        try:
            if world().rank == victim:
                sent = torch.distributed.all_reduce(values, async_op=True)
                os.kill(os.getpid(), signal.SIGKILL)
                sent.wait()
            for _ in range(100):
                torch.distributed.all_reduce(values)
        except RuntimeError:
            return time.monotonic() - began
        return "nothing was raised"


def one_sample_too_many(rank: int) -> str:
    """What a process raises when a process cannot hold even one sample."""
    with distributed():
        sums = GradientSum(nn.Linear(2, 2))
        try:
            for trying in Room(None, torch.device("cpu"), sums).tries(0, slice(0, 1)):
                with trying:
                    if world().rank == rank:
                        raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError as error:
            return str(error)
        return "nothing"


class Layers(nn.Module):
    """Some parameters of random shapes, some frozen, some used by some of the processes only."""

    def __init__(self, draw: np.random.Generator) -> None:
        super().__init__()
        count = int(draw.integers(1, 9))
        self.layers = nn.ParameterList(
            nn.Parameter(
                torch.from_numpy(draw.normal(size=draw.integers(1, 9, int(draw.integers(0, 3))))),
                requires_grad=bool(draw.random() < 0.8),
            )
            for _ in range(count)
        )

    def forward(self, numbers: torch.Tensor, used: NDArray[np.bool_]) -> torch.Tensor:
        """Of samples (B, 8); the gradient by each parameter used depends on them."""
        terms = [
            (numbers[:, at].sum() * layer.sin()).sum()
            for at, layer in enumerate(self.layers)
            if used[at]
        ]
        return torch.stack([*terms, numbers.sum()]).sum()


def sums_of_random_tries(seeds: range) -> list[str]:
    """What is wrong with the summed gradients of random modules, by the seed of each.

    Every process has a number of micro-batches of its own, uses parameters of its own, and may run
    out of memory somewhere in a try; what all processes computed in it is then lost.
    """
    with distributed():
        return [wrong for seed in seeds for wrong in _sum_of_random_tries(seed)]


def _sum_of_random_tries(seed: int) -> list[str]:
    draw, here = np.random.Generator(np.random.Philox(seed)), world()
    modules, wrong = [Layers(draw), Layers(draw)], []
    sums = GradientSum(*modules, bucket_bytes=int(draw.integers(1, 400)))
    room = Room(None, torch.device("cpu"), sums)
    for step in range(3):
        counts = draw.integers(1, 5, here.size)
        numbers = [torch.from_numpy(draw.normal(size=(count, 2, 8))) for count in counts]
        used = draw.random((here.size, 2, 8)) < 0.7
        fails = int(draw.integers(0, 12, here.size)[here.rank])
        room.micro_batch, passes, own = None, 0, len(numbers[here.rank])
        for trying in room.tries(step, slice(0, own)):
            with trying:
                for part in room.micro_batches(slice(0, own)):
                    for at, module in enumerate(modules):
                        passes += 1
                        if passes == fails and min(room.micro_batch or own, own) > 1:
                            raise torch.OutOfMemoryError("no memory left")
                        loss = module(numbers[here.rank][part, at], used[here.rank, at])
                        if loss.requires_grad:
                            loss.backward()
        summed = [[one.grad for one in module.layers] for module in modules]
        for at, module in enumerate(modules):
            for rank in range(here.size):
                if rank == 0:
                    module.zero_grad()
                loss = module(numbers[rank][:, at], used[rank, at])
                if loss.requires_grad:
                    loss.backward()
            for name, found, right in zip(range(8), summed[at], module.layers, strict=False):
                same = (found is None) == (right.grad is None)
                if not same or (found is not None and not torch.allclose(found, right.grad)):
                    wrong.append(f"seed {seed}, step {step}, module {at}, parameter {name}")
    return wrong


SMALL = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)


class Broken:
    """Samples of which one cannot be read."""

    def __init__(self, samples: SampleSet) -> None:
        self.samples, self.labels = samples.samples, samples.labels
        self.frames, self.resolution = samples.frames, samples.resolution
        self._whole = samples

    def __len__(self) -> int:
        return len(self._whole)

    def batch(self, indices: NDArray[np.int64], flips: Any = None) -> NDArray[np.uint8]:
        """Raises for sample 20."""
        if 20 in indices:
            raise DataError("sample 20 cannot be read")
        return self._whole.batch(indices, flips)


def few_samples(count: int) -> SampleSet:
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return SampleSet(samples=pixels, labels=np.arange(count) % 3)


def fixed(model: Callable[[], nn.Module]) -> Any:
    """A model with the same weights in every process, none of them 0."""
    torch.manual_seed(0)
    built = model()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return built


def make(folder: Path, what: str, *, stop_at: int | None = None, broken: bool = False) -> Any:
    """Do what every process of a world does with the same arguments; its result or its error.

    Only the last process is asked to stop, and only one of them meets the broken sample.
    """
    whole = few_samples(43)
    samples: Any = Broken(whole) if broken else whole
    asked, told = iter(range(10**6)), list[Any]()
    with distributed():
        here = world()
        common = {
            "batch": 4,
            "progress": lambda *at: told.append(at),
            "should_stop": lambda: next(asked) == stop_at and here.rank == here.size - 1,
        }
        tokenizer = fixed(partial(ViTok, SMALL))
        try:
            if what == "latents":
                made: Any = compute_latents(
                    tokenizer,
                    samples,
                    folder,
                    normalisation="per-channel",
                    flip=True,
                    made_by={"test": 1},
                    **common,
                ).sha256
            elif what == "samples":
                dit = fixed(partial(DiT, DiTSpec.for_tokenizer(SMALL, size="nano", classes=3)))
                c = SMALL.c
                tokenizer.normalisation = Normalisation(
                    mode="none",
                    mean_C=torch.zeros(c),
                    std_C=torch.ones(c),
                    mean=0.0,
                    std=1.0,
                    samples=1,
                )
                made = sample_to_file(
                    folder / "all.npy",
                    dit,
                    tokenizer,
                    whole.labels,
                    sampling=Sampling(steps=2),
                    seed=5,
                    made_by={"test": 1},
                    **common,
                ).tolist()
            elif what == "features":
                made = reference_features(samples, folder=folder, **common).name
            elif what == "reconstruct":
                names = ["psnr", "ssim", "rfd_lite0", "code_kl", "code_scale_error"]
                made = reconstruct(tokenizer, samples, metrics=names, folder=folder, **common)
            else:
                known = {"lite0": reference_features(whole, folder=folder / "known")}
                made = measure_generation(
                    samples, metrics=["gfd_lite0"], references=known, folder=folder, **common
                )
        except VitokError as error:
            return {"error": type(error).__name__, "text": str(error)}
    return {"made": made, "told": bool(told) == (here.rank == 0)}


def train_in_processes(
    processes: int, data: Path, folder: Path, *, stop_at: int | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Start them, wait for all, and return what each says, by rank."""
    port = free_port()
    asked = json.dumps({"data": str(data), "folder": str(folder), "stop_at": stop_at, **options})
    started = [
        subprocess.Popen(
            [sys.executable, __file__, asked],
            env={**os.environ, **environment(rank, processes, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    answers = []
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        answers.append(json.loads(out))
    return answers


def main() -> None:
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    answer = run(Path(asked.pop("data")), Path(asked.pop("folder")), **asked)
    print(json.dumps(answer), flush=True)
    # Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291).
    os._exit(0)


if __name__ == "__main__":
    main()
