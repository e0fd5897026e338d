"""Are photos of train and eval apart, and does a sample follow from its position alone?"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vitok_core.data import DATASETS, PICTURES, Sampler, content_identity, open_prepared, prepare
from vitok_core.data._crops import plan_crop
from vitok_core.data._sources import GAP
from vitok_core.errors import DataError, Stopped

PHOTOS = {name: info for name, info in DATASETS.items() if not info.video}
resolutions = st.sampled_from([8, 16, 32, 64, 128, 256])
indices = st.integers(0, 10**9)


def file_of(number: int) -> Path:
    picture = PICTURES[number]
    spec = importlib.util.find_spec(picture.package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / picture.file


@given(resolutions, indices)
def test_crops_stay_in_their_region(resolution: int, index: int) -> None:
    for name, info in PHOTOS.items():
        crop = plan_crop(name, resolution=resolution, index=index)
        left, top, right, bottom = crop.box
        low_x, low_y, high_x, high_y = PICTURES[crop.picture].region(info.split)
        assert right - left == bottom - top
        assert low_x <= left < right <= high_x
        assert low_y <= top < bottom <= high_y


@given(resolutions, indices)
def test_crops_are_enlarged_only_where_the_picture_is_too_small(
    resolution: int, index: int
) -> None:
    crop = plan_crop("photos-eval", resolution=resolution, index=index)
    largest = PICTURES[crop.picture].largest_crop
    side = crop.box[2] - crop.box[0]
    assert min(resolution, largest) <= side <= largest


def test_regions_of_a_picture_share_no_pixel_and_keep_their_distance() -> None:
    for picture in PICTURES:
        owner = np.zeros((picture.height, picture.width), int)
        for split in ("train", "eval"):
            left, top, right, bottom = picture.region(split)
            assert 0 <= left < right <= picture.width
            assert 0 <= top < bottom <= picture.height
            owner[top:bottom, left:right] += 1 if split == "train" else 2
        assert set(np.unique(owner)) == {0, 1, 2}, picture.name
        axis = 1 if picture.eval_side in ("left", "right") else 0
        line = owner.any(axis=1 - axis)
        assert (~line).sum() == GAP, picture.name
        assert picture.largest_crop >= 180, picture.name


def test_no_evaluation_pixel_reaches_a_prepared_training_image(tmp_path: Path) -> None:
    """Painting the evaluation regions over before cutting changes no bit of a training image."""
    prepare("photos-train", resolution=32, images=90, folder=tmp_path)
    prepared = open_prepared(tmp_path)
    for number, picture in enumerate(PICTURES):
        with Image.open(file_of(number)) as image:
            painted = image.convert("RGB")
        assert painted.size == (picture.width, picture.height)
        left, top, right, bottom = picture.region("eval")
        ImageDraw.Draw(painted).rectangle((left, top, right - 1, bottom - 1), fill=(255, 0, 255))
        for index in range(number, 90, len(PICTURES)):
            crop = plan_crop("photos-train", resolution=32, index=index)
            assert crop.picture == number == prepared.labels[index]
            small = painted.crop(crop.box).resize((32, 32), Image.Resampling.BICUBIC)
            assert np.array_equal(np.asarray(small), prepared.samples[index])


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = prepare("photos-eval", resolution=16, images=20, folder=tmp_path / "few")
    many = prepare("photos-eval", resolution=16, images=300, folder=tmp_path / "many")
    again = prepare("photos-eval", resolution=16, images=300, folder=tmp_path / "again")
    first, second = open_prepared(tmp_path / "few"), open_prepared(tmp_path / "many")
    assert np.array_equal(first.samples, second.samples[:20])
    assert np.array_equal(first.samples, second.first(20).samples)
    assert np.array_equal(first.labels, second.labels[:20])
    assert many == again
    assert many.samples_sha256 != few.samples_sha256
    stored = (tmp_path / "many" / "samples.npy").read_bytes()
    assert many.samples_sha256 == hashlib.sha256(stored).hexdigest()
    assert many.samples_bytes == len(stored)
    assert (second.resolution, len(second)) == (16, 300)
    assert second.samples.dtype == np.uint8
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        "labels.npy",
        "samples.npy",
    ]


def test_splits_differ_but_hold_all_classes(tmp_path: Path) -> None:
    for name, info in PHOTOS.items():
        prepare(name, resolution=8, images=18, folder=tmp_path / name)
        assert sorted(open_prepared(tmp_path / name).labels) == sorted([*range(info.classes)] * 2)
    train, held_out = (open_prepared(tmp_path / name).samples for name in PHOTOS)
    assert not np.array_equal(train, held_out)


def test_identity_is_plain_data_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: pytest.fail("looked for a file"))
    train, held_out = (content_identity(name) for name in PHOTOS)
    assert train != held_out
    assert json.loads(json.dumps(train)) == train
    assert {source["sha256"] for source in train["sources"]} == {p.sha256 for p in PICTURES}


def test_progress_and_stop(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(
        "photos-train",
        resolution=8,
        images=300,
        folder=tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(0, 300), (256, 300), (300, 300)]
    with pytest.raises(Stopped):
        prepare(
            "photos-train", resolution=8, images=9, folder=tmp_path / "x", should_stop=lambda: True
        )
    assert list((tmp_path / "x").iterdir()) == []


def test_unknown_names_and_numbers_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"photos-train, photos-eval, .*; did you mean photos-eval\?"
    ):
        content_identity("photos-evl")
    with pytest.raises(DataError, match="is not a data set"):
        prepare("imagenet", resolution=32, images=1, folder=tmp_path)
    with pytest.raises(DataError, match="at least 8 px"):
        prepare("photos-eval", resolution=4, images=1, folder=tmp_path)
    with pytest.raises(DataError, match=r"single images.*clips-train"):
        prepare("photos-eval", resolution=8, images=1, frames=4, folder=tmp_path)
    with pytest.raises(DataError, match="fps = 8 says nothing about single images"):
        prepare("photos-eval", resolution=8, images=1, fps=8, folder=tmp_path)
    with pytest.raises(DataError, match="prepare the data set first"):
        open_prepared(tmp_path / "nowhere")


def test_a_picture_that_is_not_the_pinned_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = dataclasses.replace(PICTURES[0], sha256="0" * 64)
    monkeypatch.setattr("vitok_core.data._prepare.PICTURES", (other, *PICTURES[1:]))
    with pytest.raises(
        DataError, match=r"another version of the package \(pip install scikit-image\)"
    ):
        prepare("photos-eval", resolution=8, images=1, folder=tmp_path)
    gone = dataclasses.replace(PICTURES[0], package="not_there")
    monkeypatch.setattr("vitok_core.data._prepare.PICTURES", (gone, *PICTURES[1:]))
    with pytest.raises(DataError, match="pip install scikit-image"):
        prepare("photos-eval", resolution=8, images=1, folder=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "shape", "kind"])
def test_damaged_arrays_are_refused(damage: str, tmp_path: Path) -> None:
    prepare("photos-eval", resolution=8, images=4, folder=tmp_path)
    path = tmp_path / "samples.npy"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "shape":
        np.save(path, np.zeros((5, 8, 8, 3), np.uint8))
    else:
        np.save(path, np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(DataError):
        open_prepared(tmp_path)


def test_batches_are_copies_and_mirrored_where_asked(tmp_path: Path) -> None:
    prepare("photos-train", resolution=8, images=6, folder=tmp_path)
    images = open_prepared(tmp_path)
    batch = images.batch(np.array([4, 1]), np.array([True, False]))
    assert batch.shape == (2, 3, 8, 8)
    assert np.array_equal(batch[0], images.samples[4].transpose(2, 0, 1)[:, :, ::-1])
    assert np.array_equal(batch[1], images.samples[1].transpose(2, 0, 1))
    batch[:] = 0
    assert images.samples[4].any()


@given(st.integers(1, 40), st.integers(0, 2**63 - 1), st.integers(0, 100), st.data())
def test_samples_do_not_depend_on_how_they_are_asked_for(
    size: int, seed: int, start: int, choose: st.DataObject
) -> None:
    whole = Sampler(size, seed).draw(start, 60)
    cuts = sorted(choose.draw(st.lists(st.integers(0, 60), max_size=4)))
    sampler = Sampler(size, seed)
    parts = [
        sampler.draw(start + first, last - first)
        for first, last in zip([0, *cuts], [*cuts, 60], strict=True)
    ]
    assert np.array_equal(whole.indices, np.concatenate([part.indices for part in parts]))
    assert np.array_equal(whole.flips, np.concatenate([part.flips for part in parts]))


@given(st.integers(1, 50), st.integers(0, 1000), st.integers(0, 20))
def test_every_pass_shows_every_sample_once(size: int, seed: int, epoch: int) -> None:
    draw = Sampler(size, seed).draw(epoch * size, size)
    assert sorted(draw.indices) == list(range(size))


def test_passes_seeds_and_mirroring_differ() -> None:
    sampler = Sampler(1000, seed=5)
    first, second = sampler.draw(0, 1000), sampler.draw(1000, 1000)
    assert not np.array_equal(first.indices, second.indices)
    assert not np.array_equal(first.indices, Sampler(1000, seed=6).draw(0, 1000).indices)
    assert 400 < first.flips.sum() < 600
    by_index = [np.empty(1000, bool), np.empty(1000, bool)]
    for flips, draw in zip(by_index, (first, second), strict=True):
        flips[draw.indices] = draw.flips
    assert 400 < (by_index[0] != by_index[1]).sum() < 600


def test_the_order_of_a_seed_is_fixed_for_ever() -> None:
    """A new numpy must not reshuffle old studies: raw Philox words are guaranteed, so is this."""
    assert Sampler(8, seed=1).draw(0, 8).indices.tolist() == ORDER
    assert plan_crop("photos-train", resolution=32, index=3).box == BOX


def test_samplers_that_cannot_be() -> None:
    for size, seed in ((0, 0), (1, -1), (1, 2**63)):
        with pytest.raises(DataError):
            Sampler(size, seed)


ORDER = [3, 5, 2, 7, 0, 6, 1, 4]
BOX = (147, 67, 361, 281)
