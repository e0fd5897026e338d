"""Features of the originals, computed once for every model that is compared with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, SpecError
from vitok_core.evaluate._batches import EvaluateProgress, each_batch
from vitok_core.features import convolutions, feature_network, placed
from vitok_core.files import replacing
from vitok_core.metrics import backbone_of, frames_of, protocol
from vitok_core.protocols import Protocol
from vitok_core.ranks import collected, from_first

FEATURES_FILE = "features.npy"


@convolutions("fp32")
def reference_features(
    samples: SampleSet,
    *,
    protocol_name: str = "lite0",
    features: str | None = None,
    folder: Path,
    device: str | torch.device = "cpu",
    batch: int = 64,
    progress: Callable[[EvaluateProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Write features.npy of the originals under a protocol; return its path.

    float32, (N, F) of images; of clips (N * T, F), those of a clip one after the other, or (N, F)
    where the network sees whole clips. F is the width of its `Backbone`.

    Args:
        samples: images or clips.
        protocol_name: key into `vitok_core.protocols.PROTOCOLS`.
        features: as metrics name them; None for those of the protocol's main network.
        folder: where the file goes; made if missing.
        device: where the network runs.
        batch: images, or frames of whole clips, at a time.
        progress: called after every batch.
        should_stop: called before every batch.

    Raises:
        SpecError: unknown protocol, or a backbone that it has no rules for.
        WeightsError: the feature network is missing.
        Stopped: `should_stop` said so; nothing was written.
    """
    rules = protocol(protocol_name)
    backbone = backbone_of(features or rules.features, rules)
    if backbone.sees == "pairs":
        raise SpecError("features", f"{backbone.name} compares pairs; it has no features of one")
    network = placed(feature_network(backbone.name), device)
    found = []

    def look(indices: NDArray[np.int64]) -> None:
        originals = torch.from_numpy(samples.batch(indices)).to(device)
        seen = originals if backbone.sees == "clips" else frames_of(originals)
        found.append(network(seen).cpu().numpy())

    each_batch(
        samples,
        look,
        batch=batch,
        progress=progress,
        should_stop=should_stop,
        what="the features",
    )
    parts, path = collected(found), folder / FEATURES_FILE

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save(path, np.concatenate([one for part in parts for one in part]))

    from_first(write)
    return path


def read_features(path: Path, features: str, rules: Protocol) -> NDArray[np.float32]:
    """Features that `reference_features` wrote, mapped into memory.

    Raises:
        SpecError: the protocol has no rule for these features.
        DataError: no file, or one that holds something else.
    """
    width = backbone_of(features, rules).width
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the reference {path} cannot be read: {error}") from error
    if found.dtype != np.float32 or found.shape[1:] != (width,):
        raise DataError(
            f"the reference {path} holds {found.dtype} {found.shape}; expected float32 "
            f"(images, {width})"
        )
    return found


def save(path: Path, array: NDArray[np.uint8] | NDArray[np.float32]) -> None:
    """Write an array so that a reader sees it whole or not at all."""
    # Through an open file: numpy would give the temporary name another suffix.
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
