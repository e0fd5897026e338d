"""What do gradient sums cost over several processes? python bench/ranks.py [--full]

Times whole steps (forward, loss, backward, sums, clipping, fused AdamW) of one tokenizer in two
gloo processes of one thread each, three ways in the same processes, in alternating order:

    overlapped   ours: every bucket is sent as soon as its gradients are there
    ddp          torch's DistributedDataParallel with gradient_as_bucket_view=True
    afterwards   the same buckets, all sent after the backward pass

Printed are medians, and the median of ratios of steps that ran one after the other, which a busy
machine disturbs least. gloo adds up on the same CPU cores that compute, so what overlapping saves
here is waiting only; on GPUs NCCL has memory and links of its own.

Default: mini-mini/4 at 32 px, batch 8 for each process. --full: S-B/16 at 256 px, batch 1 besides.
Target: no slower than DDP by more than 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitok_core.losses import stage1_loss
from vitok_core.settings import Loss, Optimiser
from vitok_core.spec import TokenizerSpec, parse_variant
from vitok_core.tokenizer import ViTok
from vitok_core.train import distributed, world
from vitok_core.train._optimise import adamw, clip_gradients
from vitok_core.train._parallel import GradientSum

WAYS = ("overlapped", "ddp", "afterwards")
PROCESSES = 2
OPTIMISER = Optimiser(lr=1e-4)
CPU = torch.device("cpu")

Step = Callable[[Tensor], None]


def model_of(variant: str, resolution: int) -> ViTok:
    found = parse_variant(variant)
    spec = TokenizerSpec(
        encoder=found.encoder, decoder=found.decoder, p=found.p, c=16, resolution=resolution
    )
    torch.manual_seed(0)
    return ViTok(spec).train()


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    x_hat, posterior = model(x)
    return stage1_loss(Loss(lpips=0.0), x, x_hat, posterior, {})[0]


def ours(variant: str, resolution: int, *, overlapped: bool) -> Step:
    """A step with our sums; without overlapping no micro-batch is said to be the last."""
    model = model_of(variant, resolution)
    optimiser, sums = adamw(model, OPTIMISER, CPU), GradientSum(model)

    def step(x: Tensor) -> None:
        sums.begin()
        sums.last = overlapped
        torch.autograd.backward(loss_of(model, x) / world().size)
        sums.finish()
        clip_gradients(model.parameters(), OPTIMISER)
        optimiser.step()

    return step


def ddp(variant: str, resolution: int) -> Step:
    model = model_of(variant, resolution)
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimiser = adamw(model, OPTIMISER, CPU)

    def step(x: Tensor) -> None:
        optimiser.zero_grad()
        torch.autograd.backward(loss_of(wrapped, x))
        clip_gradients(model.parameters(), OPTIMISER)
        optimiser.step()

    return step


def measure(variant: str, resolution: int, batch: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat, by way; all processes begin each together."""
    steps = {
        "overlapped": ours(variant, resolution, overlapped=True),
        "ddp": ddp(variant, resolution),
        "afterwards": ours(variant, resolution, overlapped=False),
    }
    x = torch.rand(batch, 3, resolution, resolution) * 2 - 1
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(-2, repeats):
        # Every way is first, second and last equally often.
        for way in (*WAYS[repeat % 3 :], *WAYS[: repeat % 3]):
            torch.distributed.barrier()
            began = time.perf_counter()
            steps[way](x)
            torch.distributed.barrier()
            if repeat >= 0:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def start(arguments: list[str]) -> dict[str, list[float]]:
    """Run `measure` in processes of their own; what the first one measured."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--measure", *arguments],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(PROCESSES),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    answers = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("a process failed, see above")
    measured: dict[str, list[float]] = json.loads(answers[0])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="S-B/16 at 256 px as well")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        torch.set_num_threads(1)
        variant, *numbers = given.measure
        with distributed():
            print(json.dumps(measure(variant, *map(int, numbers))), flush=True)
        # Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291).
        os._exit(0)
    cases = [("mini-mini/4", 32, 8)] + ([("S-B/16", 256, 1)] if given.full else [])
    for variant, resolution, batch in cases:
        seconds = start([variant, str(resolution), str(batch), str(given.repeats)])
        print(f"{variant} at {resolution} px, batch {batch} in each of {PROCESSES} processes")
        for way in WAYS:
            ratio = statistics.median(
                own / other for own, other in zip(seconds[way], seconds["ddp"], strict=True)
            )
            middle = 1e3 * statistics.median(seconds[way])
            print(f"  {way:12} {middle:8.1f} ms a step, {ratio:.3f} of ddp")


if __name__ == "__main__":
    main()
