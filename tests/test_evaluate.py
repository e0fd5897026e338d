"""Are reconstructions measured against their own originals, whatever the batches?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitok_core.data import SampleSet, open_prepared, prepare
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped
from vitok_core.evaluate import EvaluateProgress, reconstruct, reference_features
from vitok_core.protocols import METRICS
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok, from_uint8, to_uint8

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-eval", resolution=32, images=30, folder=folder)
    return open_prepared(folder)


@pytest.fixture(scope="module")
def tokenizer() -> ViTok:
    torch.manual_seed(0)
    return ViTok(SPEC).eval()


def test_all_metrics_with_and_without_a_reference(
    tokenizer: ViTok, photos: SampleSet, tmp_path: Path
) -> None:
    told: list[EvaluateProgress] = []
    reference = reference_features(photos, folder=tmp_path / "reference", batch=16)
    assert np.load(reference).shape == (30, 1280)
    plain = reconstruct(
        tokenizer, photos, metrics=list(METRICS), folder=tmp_path, batch=30, progress=told.append
    )
    batched = reconstruct(
        tokenizer, photos, metrics=list(METRICS), reference=reference, folder=tmp_path, batch=7
    )
    assert [entry.name for entry in plain] == list(METRICS)
    assert {entry.n for entry in plain} == {30}
    for left, right in zip(plain, batched, strict=True):
        assert left.value == pytest.approx(right.value, rel=1e-3), left.name
    assert [(entry.done, entry.total) for entry in told] == [(30, 30)]


def test_pairs_for_a_picture_show_every_class_first(
    tokenizer: ViTok, photos: SampleSet, tmp_path: Path
) -> None:
    # Two classes only in the front; the others come late.
    order = np.concatenate([np.repeat([0, 1], 8), np.arange(2, 14)])
    images = SampleSet(samples=photos.samples[order], labels=photos.labels[order])
    reconstruct(tokenizer, images, metrics=["psnr"], folder=tmp_path, batch=5)
    originals = np.load(tmp_path / "originals.npy")
    reconstructions = np.load(tmp_path / "reconstructions.npy")
    assert originals.shape == reconstructions.shape == (16, 32, 32, 3)
    assert originals.dtype == reconstructions.dtype == np.uint8
    shown = [next(k for k in range(28) if np.array_equal(images.samples[k], o)) for o in originals]
    assert set(images.labels[shown]) == set(images.labels)
    with torch.no_grad():
        x = from_uint8(torch.from_numpy(originals).permute(0, 3, 1, 2))
        expected = to_uint8(tokenizer(x)).permute(0, 2, 3, 1).numpy()
    assert np.abs(expected.astype(int) - reconstructions).max() <= 1


def test_the_value_is_that_of_the_pairs(
    tokenizer: ViTok, photos: SampleSet, tmp_path: Path
) -> None:
    (measured,) = reconstruct(tokenizer, photos.first(9), metrics=["psnr"], folder=tmp_path)
    pairs = [
        np.load(tmp_path / f"{side}.npy").astype(float) for side in ("originals", "reconstructions")
    ]
    mse = ((pairs[0] - pairs[1]) ** 2).mean(axis=(1, 2, 3))
    assert measured.value == pytest.approx((10 * np.log10(255**2 / mse)).mean())


def test_stopping(tokenizer: ViTok, photos: SampleSet, tmp_path: Path) -> None:
    asked = iter([False, True])
    with pytest.raises(Stopped, match="image 10 of 30"):
        reconstruct(
            tokenizer,
            photos,
            metrics=["psnr"],
            folder=tmp_path,
            batch=10,
            should_stop=lambda: next(asked),
        )
    with pytest.raises(Stopped):
        reference_features(photos, folder=tmp_path, should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_evaluated(tokenizer: ViTok, photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="takes 1 frame"):
        reconstruct(
            ViTok(TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=64)),
            photos,
            metrics=["psnr"],
            folder=tmp_path,
        )
    with pytest.raises(SpecError, match="batch = 0"):
        reconstruct(tokenizer, photos, metrics=["psnr"], folder=tmp_path, batch=0)
    with pytest.raises(SpecError, match="is no protocol"):
        reference_features(photos, protocol_name="adm", folder=tmp_path)
    reference = reference_features(photos.first(5), folder=tmp_path)
    with pytest.raises(DataError, match="5 images, but 30"):
        reconstruct(tokenizer, photos, metrics=["rfd_lite0"], reference=reference, folder=tmp_path)
    np.save(tmp_path / "other.npy", np.zeros((30, 7), np.float32))
    for other in ("other.npy", "none.npy"):
        with pytest.raises(DataError, match="the reference"):
            reconstruct(
                tokenizer,
                photos,
                metrics=["rfd_lite0"],
                reference=tmp_path / other,
                folder=tmp_path,
            )


def test_reconstructions_that_are_not_numbers(photos: SampleSet, tmp_path: Path) -> None:
    broken = ViTok(SPEC)
    with torch.no_grad():
        broken.output.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        reconstruct(broken, photos.first(9), metrics=["psnr"], folder=tmp_path)
