"""Does streaming show every sample once a pass, in an order that needs no replay to go on?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_files import SIDE, picture_folder, pixels, png, shard, shards, video
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from vitok_core.data import OwnData, SampleSet, StreamSet, open_prepared, prepare_own, scan
from vitok_core.data._own_prepare import order_of
from vitok_core.data._pixels import square
from vitok_core.data._random_crops import NUMBERS, RandomBox, box_numbers
from vitok_core.data._stream import StreamSampler
from vitok_core.errors import DataError, Stopped
from vitok_core.settings import Loss, Optimiser, Stage1
from vitok_core.spec import TokenizerSpec
from vitok_core.train import train_stage1

counts = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))


@given(counts, st.integers(0, 2**63 - 1), st.integers(1, 5), st.integers(0, 3))
def test_every_pass_shows_each_sample_once(
    sizes: list[int], seed: int, window: int, epoch: int
) -> None:
    sampler, size = StreamSampler(np.array(sizes), seed, window=window), sum(sizes)
    drawn = sampler.draw(epoch * size, size)
    assert sorted(drawn.indices) == list(range(size))


@given(counts, st.integers(0, 1000), st.integers(1, 5), st.integers(0, 60), st.integers(1, 40))
def test_a_position_is_all_that_going_on_needs(
    sizes: list[int], seed: int, window: int, position: int, count: int
) -> None:
    """What comes at a position depends neither on how it was reached nor on the batch's size."""
    whole = StreamSampler(np.array(sizes), seed, window=window).draw(0, position + count)
    fresh = StreamSampler(np.array(sizes), seed, window=window).draw(position, count)
    assert np.array_equal(whole.indices[position:], fresh.indices)
    assert np.array_equal(whole.flips[position:], fresh.flips)
    one_by_one = StreamSampler(np.array(sizes), seed, window=window)
    singles = [int(one_by_one.draw(position + k, 1).indices[0]) for k in range(count)]
    assert singles == list(fresh.indices)


def test_reads_stay_in_a_window_of_shards_and_passes_differ() -> None:
    sizes = np.full(20, 50)
    sampler = StreamSampler(sizes, 7, window=4)
    first, second = (sampler.draw(epoch * 1000, 1000) for epoch in (0, 1))
    assert not np.array_equal(first.indices, second.indices)
    orders = []
    for start in range(0, 1000, 200):
        touched = np.unique(first.indices[start : start + 200] // 50)
        assert len(touched) == 4
        orders.append(touched)
        inside = first.indices[start : start + 200]
        assert (np.diff(inside) == 1).mean() < 0.1  # shuffled within the window
    assert sorted(np.concatenate(orders)) == list(range(20))
    assert 400 < first.flips.sum() < 600
    assert not np.array_equal(
        first.indices, StreamSampler(sizes, 8, window=4).draw(0, 1000).indices
    )
    for wrong in ({"seed": -1}, {"window": 0}, {"counts": np.zeros(3, np.int64)}):
        with pytest.raises(DataError, match="needed are"):
            StreamSampler(**{"counts": sizes, "seed": 0, **wrong})  # type: ignore[arg-type]


def test_a_stream_gives_the_pixels_of_the_prepared_set(tmp_path: Path) -> None:
    own = OwnData(name="own", kind="webdataset", place=shards(tmp_path / "set", 4, 6))
    scanned = scan(own)
    prepare_own(scanned, resolution=16, images=24, folder=tmp_path / "out")
    prepared, place = open_prepared(tmp_path / "out"), np.argsort(order_of(24))
    indices, flips = np.array([3, 20, 3, 11]), np.array([False, True, True, False])
    with StreamSet(scanned, resolution=16, threads=2, window=2) as stream:
        assert np.array_equal(stream.batch(indices, flips), prepared.batch(place[indices], flips))
        assert np.array_equal(stream.labels, prepared.labels[place])
        assert (len(stream), stream.frames, stream.sample_bytes) == (24, 1, prepared.sample_bytes)
        drawn = stream.sampler(3).draw(0, 24)
        for start in (0, 12):
            assert len(np.unique(drawn.indices[start : start + 12] // 6)) == 2
        assert stream.broken == ()


def test_a_folder_is_shuffled_as_a_whole_and_clips_stream_too(tmp_path: Path) -> None:
    own = OwnData(name="own", kind="folder", place=str(picture_folder(tmp_path / "set", {"a": 9})))
    with StreamSet(scan(own), resolution=SIDE) as stream:
        prepared = SampleSet(samples=np.zeros((9, 8, 8, 3), np.uint8), labels=np.zeros(9, np.int64))
        drawn = stream.sampler(5).draw(4, 30)
        assert np.array_equal(drawn.indices, prepared.sampler(5).draw(4, 30).indices)
        got = stream.batch(np.arange(9))
    assert np.array_equal(got, np.stack([pixels(k).transpose(2, 0, 1) for k in range(9)]))
    pytest.importorskip("av")
    video(tmp_path / "films" / "a.mkv", frames=12)
    films = scan(OwnData(name="films", kind="videos", place=str(tmp_path / "films")))
    with StreamSet(films, resolution=16, frames=5) as stream:
        assert stream.batch(np.array([0, 0])).shape == (2, 3, 5, 16, 16)
    with pytest.raises(DataError, match="single images"):
        StreamSet(scan(own), resolution=16, frames=5)


def test_broken_files_are_replaced_counted_and_limited(tmp_path: Path) -> None:
    place = shard(
        tmp_path / "x.tar",
        [(f"{k:02d}", {"png": b"" if k in (4, 5, 9) else png(k)}) for k in range(10)],
    )

    def stream(share: float) -> StreamSet:
        own = OwnData(name="own", kind="webdataset", place=str(place), broken_share=share)
        return StreamSet(scan(own), resolution=SIDE)

    with stream(0.3) as samples:
        got = samples.batch(np.array([4, 5, 6, 9, 0]))
        assert np.array_equal(got[0], got[2])
        assert np.array_equal(got[1], got[2])
        assert np.array_equal(got[3], got[4])
        assert [(one.name, one.why) for one in samples.broken] == [
            (f"x.tar/{k:02d}.png", "empty file") for k in (4, 5, 9)
        ]
    with stream(0.2) as samples, pytest.raises(DataError, match="3 files are broken, 2 of 10"):
        samples.batch(np.array([4, 5, 9]))


def test_training_reads_a_stream_and_goes_on_to_the_byte(tmp_path: Path) -> None:
    own = OwnData(name="own", kind="webdataset", place=shards(tmp_path / "set", 4, 6))
    scanned = scan(own)
    spec = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
    config = Stage1(
        precision="fp32", steps=9, batch=5, optimiser=Optimiser(lr=1e-3), loss=Loss(lpips=0.0)
    )
    with StreamSet(scanned, resolution=16, window=2) as stream:
        whole = train_stage1(spec, config, stream, tmp_path / "whole")
        asked = iter(range(100))
        with pytest.raises(Stopped):
            train_stage1(
                spec, config, stream, tmp_path / "two", should_stop=lambda: next(asked) == 4
            )
    with StreamSet(scanned, resolution=16, window=2) as stream:
        again = train_stage1(spec, config, stream, tmp_path / "two")
    assert again.resumed_from == 4
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def striped(width: int, height: int) -> bytes:
    """A picture whose red tells the column and whose green tells the row."""
    from io import BytesIO

    from PIL import Image

    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0] = np.arange(width)[None, :]
    array[..., 1] = np.arange(height)[:, None]
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def wide(folder: Path, count: int = 12) -> OwnData:
    """Shards of pictures, 40 x 16 and 16 x 40 in turn."""
    sizes = [(40, 16) if k % 2 == 0 else (16, 40) for k in range(count)]
    for number in range(2):
        shard(
            folder / f"{number}.tar",
            [(f"{k:02d}", {"png": striped(*sizes[k])}) for k in range(number, count, 2)],
        )
    return OwnData(name="own", kind="webdataset", place=str(folder / "{0,1}.tar"))


def test_a_random_crop_is_another_square_in_each_pass(tmp_path: Path) -> None:
    scanned = scan(wide(tmp_path))
    with StreamSet(scanned, resolution=16, crop="random") as stream:
        sampler = stream.sampler(3)
        first, second = sampler.draw(0, 12), sampler.draw(12, 12)
        assert first.places is not None and second.places is not None
        cut = stream.batch(first.indices, None, first.places)
        # The place follows from (seed, pass, sample): not from how it was reached.
        for start in range(0, 20, 5):
            fresh = stream.sampler(3).draw(start, 5)
            both = np.concatenate([first.places, second.places])
            assert np.array_equal(fresh.places, both[start : start + 5])  # type: ignore[arg-type]
        assert not np.array_equal(first.places[np.argsort(first.indices)],
                                  second.places[np.argsort(second.indices)])  # fmt: skip
        names = [scanned.name(int(index)) for index in first.indices]
        for pixels, name, (across, down) in zip(cut, names, first.places, strict=True):
            lying = int(Path(name).stem) % 2 == 0
            # Nothing is resized here: the first column and row say where the square was cut.
            left, top = int(pixels[0, 0, 0]), int(pixels[1, 0, 0])
            assert left == (int(across * 25) if lying else 0)
            assert top == (0 if lying else int(down * 25))
        middle = stream.batch(first.indices)
        plain = StreamSet(scanned, resolution=16)
        with plain:
            assert plain.sampler(3).draw(0, 12).places is None
            # Order and mirroring are those of the set without random crops.
            assert np.array_equal(plain.sampler(3).draw(0, 12).indices, first.indices)
            assert np.array_equal(plain.batch(first.indices), middle)
    prepare_own(scanned, resolution=16, images=12, folder=tmp_path / "out")
    with pytest.raises(DataError, match="cut already"):
        open_prepared(tmp_path / "out").batch(np.array([0]), None, np.zeros((1, 2)))


def test_places_cover_the_picture_evenly(tmp_path: Path) -> None:
    with StreamSet(scan(wide(tmp_path)), resolution=16, crop="random") as stream:
        drawn = stream.sampler(0).draw(0, 12 * 400)
    assert drawn.places is not None
    counts, _ = np.histogram(drawn.places, bins=8, range=(0, 1))
    assert counts.min() / counts.mean() > 0.85 and counts.max() / counts.mean() < 1.15


# --- random resized crops -----------------------------------------------------------------------


def of_torchvision(numbers: list[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The box that torchvision takes when it draws these numbers."""
    given, places = iter(numbers), [numbers[-2], numbers[-1]]  # down is drawn first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.Tensor,
            "uniform_",
            lambda self, low, high: self.fill_(low + (high - low) * next(given)),
        )
        patch.setattr(
            torch, "randint", lambda low, high, size: torch.tensor([int(places.pop() * high)])
        )
        top, left, down, across = RandomResizedCrop.get_params(
            torch.empty(3, height, width), [0.8, 1.0], [3 / 4, 4 / 3]
        )
    return left, top, left + across, top + down


def test_a_random_box_is_that_of_torchvision() -> None:
    for width, height in ((500, 375), (375, 500), (300, 300), (640, 360), (360, 640), (41, 64)):
        for index in range(40):
            numbers = box_numbers(0, 0, np.array([index]))[0].tolist()
            box = RandomBox(numbers).of(width, height)
            # torchvision computes in float32: a pixel more or less where a rounding is near.
            expected = of_torchvision(numbers, width, height)
            assert np.abs(np.subtract(box, expected)).max() <= 1
            assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height


def test_a_random_box_is_resized_as_torchvision_does(tmp_path: Path) -> None:
    picture = Image.fromarray(pixels(3, 100, 75))
    numbers = box_numbers(1, 2, np.array([5]))[0].tolist()
    left, top, right, bottom = RandomBox(numbers).of(100, 75)
    expected = resized_crop(picture, top, left, bottom - top, right - left, [32, 32])
    for fit in ("adm", "center"):
        got = square(picture, 32, fit, RandomBox(numbers))  # type: ignore[arg-type]  # one of both
        assert np.array_equal(got, np.asarray(expected))


def test_random_boxes_follow_from_seed_pass_and_sample(tmp_path: Path) -> None:
    scanned = scan(wide(tmp_path))
    with StreamSet(scanned, resolution=16, crop="random-resized") as stream:
        whole = stream.sampler(3).draw(0, 24)
        assert whole.places is not None and whole.places.shape == (24, NUMBERS)
        for start in range(0, 20, 5):  # over the border of a pass, in other batches
            part = stream.sampler(3).draw(start, 5)
            assert np.array_equal(part.places, whole.places[start : start + 5])  # type: ignore[arg-type]
        assert len(np.unique(whole.places[:, 0])) == 24  # another box in each pass
        other = stream.sampler(4).draw(0, 24).places
        assert not np.isin(other, whole.places).any()
        cut = stream.batch(whole.indices, None, whole.places)
        again = stream.batch(whole.indices[3:5], None, whole.places[3:5])
        assert np.array_equal(cut[3:5], again)
        middle = stream.batch(whole.indices)
    with StreamSet(scanned, resolution=16) as plain:
        drawn = plain.sampler(3).draw(0, 24)
        assert np.array_equal(drawn.indices, whole.indices)
        assert np.array_equal(drawn.flips, whole.flips)
        assert np.array_equal(plain.batch(drawn.indices), middle)


def test_random_boxes_cover_the_range() -> None:
    numbers = box_numbers(0, 0, np.arange(2000))
    boxes = np.array([RandomBox(row).of(400, 400) for row in numbers.tolist()])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, ratio = width * height / 160_000, width / height
    assert 0.795 < share.min() < 0.81 and 0.97 < share.max() <= 1
    assert 0.99 < np.exp(np.log(ratio).mean()) < 1.01 and ratio.max() < 4 / 3
    assert boxes[:, 0].min() == 0 and (boxes[:, 2] == 400).any()
    # Wider than any allowed box of 80 % can be: always the same one, in the middle.
    wide_boxes = {RandomBox(row).of(640, 360) for row in numbers[:50].tolist()}
    assert wide_boxes == {(80, 0, 560, 360)}
