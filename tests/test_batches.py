"""Are the samples of a step read ahead by position, mirrored on the device, and the right ones?"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_files import picture_folder, video
from torch.utils._python_dispatch import TorchDispatchMode

from vitok_core.data import OwnData, SampleSet, StreamSet, open_prepared, scan
from vitok_core.errors import DataError
from vitok_core.settings import Stage1
from vitok_core.train._batches import AHEAD_BYTES, ahead, arranged, read_ahead, sample_batches

CPU = torch.device("cpu")
CONFIG = Stage1(batch=5, seed=3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))


def prepared(folder: Path, *shape: int) -> SampleSet:
    """A set on disk of random samples."""
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(folder / "samples.npy", pixels)
    np.save(folder / "labels.npy", np.zeros(len(pixels), np.int64))
    return open_prepared(folder)


@pytest.mark.parametrize("shape", [(23, 8, 8, 3), (7, 3, 8, 8, 3)], ids=["images", "clips"])
@pytest.mark.parametrize("flip", [True, False])
def test_batches_are_those_of_the_mirrored_samples(
    shape: tuple[int, ...], flip: bool, tmp_path: Path
) -> None:
    samples = prepared(tmp_path, *shape)
    config = Stage1(batch=5, seed=3, flip=flip)
    got = list(sample_batches(samples, config, range(4, 24), CPU))
    assert len(got) == 20
    for step, pixels in enumerate(got, start=4):
        draw = samples.sampler(3).draw(5 * step, 5)
        expected = samples.batch(draw.indices, draw.flips if flip else None)
        assert pixels.is_contiguous() and pixels.dtype == torch.uint8
        assert np.array_equal(pixels.numpy(), expected)
    in_memory = SampleSet(samples=np.array(samples.samples), labels=samples.labels)
    same = sample_batches(in_memory, config, range(4, 24), CPU)
    assert all(torch.equal(one, other) for one, other in zip(got, same, strict=True))


def test_streams_are_mirrored_and_cut_alike(tmp_path: Path) -> None:
    own = OwnData(name="own", kind="folder", place=str(picture_folder(tmp_path / "set", {"a": 9})))
    with StreamSet(scan(own), resolution=8, crop="random") as stream:
        for step, pixels in enumerate(sample_batches(stream, CONFIG, range(6), CPU)):
            draw = stream.sampler(3).draw(5 * step, 5)
            assert draw.places is not None
            expected = stream.batch(draw.indices, draw.flips, draw.places)
            assert np.array_equal(pixels.numpy(), expected)
    pytest.importorskip("av")
    video(tmp_path / "films" / "a.mkv", frames=12)
    films = scan(OwnData(name="films", kind="videos", place=str(tmp_path / "films")))
    with StreamSet(films, resolution=16, frames=3) as stream:
        pixels = next(sample_batches(stream, CONFIG, range(1), CPU))
        draw = stream.sampler(3).draw(0, 5)
        assert np.array_equal(pixels.numpy(), stream.batch(draw.indices, draw.flips))


@given(
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.sampled_from([(4, 5, 3), (2, 4, 5, 3)]),
    st.integers(0, 99),
)
def test_mirroring_by_rows_is_mirroring_by_mask(
    mask: list[bool], shape: tuple[int, ...], seed: int
) -> None:
    stored = np.random.default_rng(seed).integers(0, 256, (len(mask), *shape), np.uint8)
    expected = stored.copy()
    flips = np.array(mask)
    expected[flips] = expected[flips][..., ::-1, :]
    got = arranged(torch.from_numpy(stored), torch.from_numpy(np.flatnonzero(flips)))
    assert np.array_equal(got.numpy(), np.moveaxis(expected, -1, 1))


def test_mirroring_asks_nothing_of_the_device() -> None:
    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    called: set[str] = set()
    with Calls():
        arranged(torch.zeros((4, 5, 5, 3), dtype=torch.uint8), torch.tensor([1, 3]))
    # Neither a value nor a number of rows, which a GPU would have to be waited for.
    assert not called & {"_local_scalar_dense", "nonzero", "item", "index"}
    assert {"index_copy_", "index_select", "flip"} <= called


def test_what_cannot_be_read_is_raised_by_the_step_that_needs_it(tmp_path: Path) -> None:
    samples = prepared(tmp_path, 40, 8, 8, 3)
    order = samples.sampler(3).draw(0, 40).indices
    last = 38
    # Cut off behind the row `last`: only the batch with row 39 is lost.
    os.truncate(tmp_path / "samples.npy", 128 + (last + 1) * 192)
    lost = int(np.flatnonzero(order == 39)[0]) // 5
    seen = []
    with pytest.raises(DataError, match=r"samples\.npy ends before row 39"):
        for pixels in sample_batches(samples, Stage1(batch=5, seed=3, flip=False), range(8), CPU):
            seen.append(pixels)
    assert len(seen) == lost
    (tmp_path / "samples.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"samples\.npy"):
        next(sample_batches(samples, CONFIG, range(8), CPU))


def test_closing_ends_every_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    batches = sample_batches(prepared(tmp_path, 40, 8, 8, 3), CONFIG, range(1000), CPU)
    next(batches)
    names = {one.name.split("_")[0] for one in set(threading.enumerate()) - before}
    assert names == {"read-ahead", "read-rows"}
    batches.close()
    assert set(threading.enumerate()) == before


def test_reading_ahead_is_bounded_and_in_order() -> None:
    begun: list[int] = []

    def load(step: int) -> int:
        begun.append(step)
        return step

    loaded = read_ahead(load, range(100), 3)
    for step, value in enumerate(loaded):
        assert value == step
        assert max(begun) <= step + 3
        if step == 50:
            break
    loaded.close()
    assert sorted(begun) == list(range(len(begun)))
    assert [ahead(size) for size in (1, AHEAD_BYTES // 4, AHEAD_BYTES, 9 * AHEAD_BYTES)] == [
        8, 4, 1, 1,
    ]  # fmt: skip


def test_first_samples_are_read_from_the_same_file(tmp_path: Path) -> None:
    samples = prepared(tmp_path, 40, 8, 8, 3)
    few = samples.first(7)
    pixels = next(sample_batches(few, CONFIG, range(1), CPU))
    draw = few.sampler(3).draw(0, 5)
    assert np.array_equal(pixels.numpy(), samples.batch(draw.indices, draw.flips))
