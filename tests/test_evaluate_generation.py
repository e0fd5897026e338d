"""Are generated samples measured by their distribution, whatever the batches and the counts?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitok_core.data import SampleSet, open_prepared, prepare
from vitok_core.errors import DataError, SpecError, Stopped
from vitok_core.evaluate import measure_generation, reference_features, write_class_sheet
from vitok_core.metrics import MetricSet, frechet_distance, kernel_distance
from vitok_core.protocols import METRICS, not_in_group

LITE0 = ["gfd_lite0", "gkid_lite0"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-eval", resolution=32, images=40, folder=folder)
    return open_prepared(folder)


def subset(samples: SampleSet, rows: slice) -> SampleSet:
    return SampleSet(samples=samples.samples[rows], labels=samples.labels[rows])


def features(samples: SampleSet, folder: Path) -> Path:
    return reference_features(samples, folder=folder)


def test_values_are_those_of_the_features_of_both_sides_whatever_the_counts(
    photos: SampleSet, tmp_path: Path
) -> None:
    originals, samples = subset(photos, slice(0, 16)), subset(photos, slice(16, 40))
    known = features(originals, tmp_path / "originals")
    own = np.load(features(samples, tmp_path / "own"))
    expected = [
        frechet_distance(np.load(known), own),
        kernel_distance(np.load(known), own, 256),
    ]
    for batch in (24, 7):
        measured = measure_generation(
            samples, metrics=LITE0, references={"lite0": known}, folder=tmp_path, batch=batch
        )
        assert [one.name for one in measured] == LITE0
        assert {one.n for one in measured} == {24}
        assert [one.value for one in measured] == pytest.approx(expected, rel=1e-3)
    assert "16 rows for 1280 features" in measured[0].note
    assert np.array_equal(np.load(tmp_path / "samples.npy"), samples.samples)


def test_samples_are_no_pairs_of_the_originals(photos: SampleSet, tmp_path: Path) -> None:
    """In another order they are the same set, with the same error; pairs would be torn apart."""
    known = features(photos, tmp_path)
    rows = np.random.default_rng(0).permutation(len(photos))
    turned = SampleSet(samples=photos.samples[rows], labels=photos.labels[rows])
    values = [
        measure_generation(
            given,
            metrics=["gfd_lite0"],
            references={"lite0": known},
            bootstrap=4,
            folder=tmp_path,
        )[0]
        for given in (photos, turned)
    ]
    for one in values:
        assert one.value == pytest.approx(0, abs=1e-3)
        # Drawn as pairs, every resample of equal sets would be equal too, and the error 0.
        assert one.se is not None and one.se > 1


def test_what_cannot_be_measured_is_said_before_any_work(photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"belongs under evaluate\.reconstruction.* gfd_lite0"):
        measure_generation(photos, metrics=["rfd_lite0"], folder=tmp_path)
    with pytest.raises(SpecError, match="those of lite0 are not given"):
        measure_generation(photos, metrics=["gfd_lite0"], folder=tmp_path)
    with pytest.raises(SpecError, match="no rule"):
        measure_generation(photos, metrics=["gfid"], folder=tmp_path)
    with pytest.raises(SpecError, match=r"belongs under evaluate\.generation"):
        MetricSet(["gfd_lite0"], resolution=32)
    known = features(photos, tmp_path / "reference")
    with pytest.raises(DataError, match="needs 2 images, there are 1"):
        measure_generation(
            photos.first(1), metrics=["gfd_lite0"], references={"lite0": known}, folder=tmp_path
        )
    with pytest.raises(Stopped, match="at sample 0 of 40"):
        measure_generation(
            photos,
            metrics=["gfd_lite0"],
            references={"lite0": known},
            folder=tmp_path,
            should_stop=lambda: True,
        )


def test_every_metric_of_sets_has_a_twin_and_no_other_has() -> None:
    generation = {name for name, one in METRICS.items() if one.group == "generation"}
    sets = {
        name
        for name, one in METRICS.items()
        if one.of == "features" and one.group == "reconstruction"
    }
    assert generation == {f"g{name[1:]}" for name in sets} and {"gfid", "gis"} <= generation
    for name in sets:
        one, twin = METRICS[name], METRICS[f"g{name[1:]}"]
        for field in ("better", "scale", "unit", "features", "reference", "needs", "frames"):
            assert getattr(one, field) == getattr(twin, field), name
        assert "reconstruct" not in twin.about and name not in twin.about
        assert not_in_group(name, "reconstruction") is None
        assert twin.name in str(not_in_group(name, "generation"))
    assert "twin" not in str(not_in_group("psnr", "generation"))


def test_a_sheet_has_a_row_a_class(tmp_path: Path) -> None:
    # Colour k is class k; class 2 has three samples only.
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2] + [0, 1] * 8)
    pixels = np.repeat(10 + 40 * labels.astype(np.uint8), 4 * 4 * 3).reshape(-1, 4, 4, 3)
    write_class_sheet(tmp_path / "deep" / "sheet.png", SampleSet(samples=pixels, labels=labels))
    sheet = np.asarray(Image.open(tmp_path / "deep" / "sheet.png"))
    assert sheet.shape == (3 * 4, 8 * 4, 3)
    assert [set(np.unique(sheet[4 * row : 4 * row + 4])) for row in range(3)] == [
        {10},
        {50},
        {0, 90},
    ]
    assert (sheet[8:, : 3 * 4] == 90).all() and (sheet[8:, 3 * 4 :] == 0).all()

    # Without classes: in their order; of clips, frames spread over one clip a row.
    clips = np.arange(3 * 20, dtype=np.uint8).repeat(4 * 4 * 3).reshape(3, 20, 4, 4, 3)
    write_class_sheet(
        tmp_path / "clips.png", SampleSet(samples=clips, labels=np.zeros(3, np.int64))
    )
    sheet = np.asarray(Image.open(tmp_path / "clips.png"))
    assert sheet[::4, ::4, 0].tolist() == [
        [20 * clip + at * 20 // 8 for at in range(8)] for clip in range(3)
    ]


@pytest.mark.slow
def test_clips_are_measured_frame_by_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)
    clips = SampleSet(samples=pixels, labels=np.zeros(6, np.int64))
    known = features(subset(clips, slice(0, 2)), tmp_path / "reference")
    assert np.load(known).shape == (8, 1280)
    (whole,) = measure_generation(
        clips, metrics=["gkid_lite0"], references={"lite0": known}, folder=tmp_path, batch=5
    )
    frames = SampleSet(samples=pixels.reshape(24, 32, 32, 3), labels=np.zeros(24, np.int64))
    (apart,) = measure_generation(
        frames, metrics=["gkid_lite0"], references={"lite0": known}, folder=tmp_path
    )
    assert (whole.n, apart.n) == (6, 24)
    assert whole.value == pytest.approx(apart.value, rel=1e-3)
