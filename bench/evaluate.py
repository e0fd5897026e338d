"""How much does one store of features save? Four metrics at once against one call for each.

Both sides measure FID, IS, KID, precision and recall of the same reconstructions with the same
Inception, random weights in the published layout (its speed does not depend on the values). The
other side is torch-fidelity as most evaluation scripts use it: one call a metric. Printed are
images a second, the memory a store holds, and the values, which must agree.

    python bench/evaluate.py [images] [side]
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from vitok_core.features._inception import _fid_trunk
from vitok_core.metrics import MetricSet
from vitok_core.protocols import FILES, Download

METRICS = ["rfid", "ris", "rkid", "rprecision", "rrecall"]
CALLS = ("fid", "isc", "kid", "prc")
BATCH = 16


class Listed(torch.utils.data.Dataset[torch.Tensor]):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def pinned_weights(folder: Path) -> Path:
    """Save random weights and make them the pinned ones."""
    torch.manual_seed(0)
    state = _fid_trunk().state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(value)
    fc = nn.Linear(2048, 1008).state_dict()
    path = folder / "fid.pth"
    torch.save({**state, **{f"fc.{name}": 20 * value for name, value in fc.items()}}, path)
    os.environ["VITOK_WEIGHTS"] = str(folder)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    pinned = FILES["inception-fid"]
    assert isinstance(pinned, Download)
    FILES["inception-fid"] = dataclasses.replace(pinned, file=path.name, sha256=sha256)
    return path


def peak_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int, side: int) -> None:
    """Measure both ways and print."""
    torch.set_num_threads(1)
    import torch_fidelity

    generator = torch.Generator().manual_seed(1)
    originals = torch.randint(0, 256, (count, 3, side, side), generator=generator).to(torch.uint8)
    noise = torch.randint(-40, 41, originals.shape, generator=generator)
    others = (originals.int() + noise).clamp(0, 255).to(torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = pinned_weights(Path(folder))
        before = peak_mb()
        begun = time.perf_counter()
        store = MetricSet(METRICS, protocol_name="torch-fidelity", resolution=side)
        for at in range(0, count, BATCH):
            store.update(originals[at : at + BATCH], others[at : at + BATCH])
        ours = {one.name: one.value for one in store.compute()}
        seconds = time.perf_counter() - begun
        held = sum(part.nbytes for part in store.seen().others["inception"])
        print(f"one store:      {count / seconds:6.2f} images/s, {seconds:.1f} s")
        print(f"features held:  {2 * held / count:,.0f} bytes a pair")
        print(f"peak memory:    {peak_mb():,.0f} MB, {peak_mb() - before:,.0f} MB above the start")
        begun, theirs = time.perf_counter(), {}
        for call in CALLS:
            theirs |= torch_fidelity.calculate_metrics(
                input1=Listed(others),
                input2=Listed(originals),
                **{call: True},
                kid_subset_size=min(count, 1000),
                feature_extractor="inception-v3-compat",
                feature_extractor_weights_path=str(path),
                batch_size=BATCH,
                cuda=False,
                save_cpu_ram=True,
                verbose=False,
                cache=False,
            )
        plain = time.perf_counter() - begun
        print(f"a call a metric: {count / plain:5.2f} images/s, {plain:.1f} s")
        print(f"ratio:          {plain / seconds:.2f}")
    pairs = {
        "rfid": "frechet_inception_distance",
        "ris": "inception_score_mean",
        "rkid": "kernel_inception_distance_mean",
        "rprecision": "precision",
        "rrecall": "recall",
    }
    for name, their in pairs.items():
        print(f"{name:12} {ours[name]:.9g} against {theirs[their]:.9g}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [48, 64][len(given) :]))
