"""The pixels of sample i: a function of the data set's name, the requested shape and i alone.

Pictures, or shots, take turns. Where to cut is drawn from a counter-based generator whose counter
is the index: sample i depends neither on how many samples there are nor on the ones before it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vitok_core.data._datasets import dataset
from vitok_core.data._sources import (
    CLIPS_RECIPE,
    PHOTOS_RECIPE,
    PICTURES,
    SHOTS,
    VIDEOS,
    Box,
    Shot,
)
from vitok_core.errors import DataError

SLOWEST = 0.001
"""Least frames per second that can be asked for; far below what any video has frames for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Which pixels become one image.

    Attributes:
        picture: index into `PICTURES`, also the label.
        box: (left, top, right, bottom) in pixels of the picture, right and bottom outside.
    """

    picture: int
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCut:
    """Which pixels become one clip.

    Attributes:
        shot: index into `SHOTS`, also the label.
        frames: numbers of the video's frames, strictly rising.
        box: (left, top, right, bottom) in pixels, the same in all frames; right and bottom outside.
    """

    shot: int
    frames: tuple[int, ...]
    box: Box


def plan_crop(name: str, *, resolution: int, index: int) -> Crop:
    """The crop behind image `index` of a set of photographs; depends on nothing but the arguments.

    The side is log-uniform between the resolution and the largest square that fits both regions of
    the picture, so train and eval show the same scales and crops are only ever reduced. A picture
    whose largest square is below the resolution (180 px at worst, so never up to there) gives crops
    of that largest size, which are then enlarged.

    Raises:
        DataError: there is no data set of that name.
    """
    info = dataset(name)
    number = index % len(PICTURES)
    picture = PICTURES[number]
    key = _key(f"vitok photos {PHOTOS_RECIPE} {name} {resolution}")
    scale, across, down = _uniform(key, index, 3)
    box = _square(picture.region(info.split), picture.largest_crop, resolution, scale, across, down)
    return Crop(picture=number, box=box)


def plan_clip(name: str, *, resolution: int, frames: int, fps: float | None, index: int) -> ClipCut:
    """The cut behind clip `index` of a set of videos; depends on nothing but the arguments.

    Shots that cannot give such a clip are passed over. The first frame is uniform among those that
    keep the clip in its part of the shot; the square is drawn as for photographs, out of the whole
    picture, and is the same in all frames.

    Args:
        name: key into `DATASETS`.
        resolution: side of a frame in pixels.
        frames: of the clip, at least 1.
        fps: frames per second, each the nearest of the video's, at most the video's own; None takes
            every frame.
        index: of the clip, from 0.

    Raises:
        DataError: there is no data set of that name, or no shot can give such a clip.
    """
    info = dataset(name)
    shots = fitting_shots(name, frames=frames, fps=fps)
    number = shots[index % len(shots)]
    shot, video = SHOTS[number], VIDEOS[SHOTS[number].video]
    rate = "native" if fps is None else repr(float(fps))
    key = _key(f"vitok clips {CLIPS_RECIPE} {name} {resolution} {frames} {rate}")
    scale, across, down, when = _uniform(key, index, 4)
    offsets = [_offset(shot, frame, fps) for frame in range(frames)]
    first, stop = shot.part(info.split)
    first += int(when * (stop - first - offsets[-1]))
    return ClipCut(
        shot=number,
        frames=tuple(first + offset for offset in offsets),
        box=_square(video.box, video.largest_crop, resolution, scale, across, down),
    )


def fitting_shots(name: str, *, frames: int, fps: float | None) -> tuple[int, ...]:
    """Indices into `SHOTS` of those whose two parts are both long enough for such a clip.

    The same for both splits, so that both show the same shots. No frame is ever shown twice: a
    video whose rate is below `fps` does not fit.

    Raises:
        DataError: no shot is, and the message says what would fit; or there cannot be such a clip.
    """
    if frames < 1 or (fps is not None and not SLOWEST <= fps < math.inf):
        raise DataError(
            f"{name}: frames = {frames} and fps = {'none' if fps is None else f'{fps:g}'}; needed "
            f"are at least 1 frame and {SLOWEST:g} frames per second"
        )
    fitting = tuple(
        number
        for number, shot in enumerate(SHOTS)
        if _has_rate(shot, fps) and _offset(shot, frames - 1, fps) < shot.longest_clip
    )
    if fitting:
        return fitting
    fastest = max(math.ceil(video.rate) for video in VIDEOS)
    if fps is not None and fps > fastest:
        raise DataError(
            f"{name}: fps = {fps:g}, but the videos have at most {fastest} frames per second and "
            f"no frame is shown twice; give fps of at most {fastest}, or none for every frame"
        )
    ever = max(shot.longest_clip for shot in SHOTS)
    if fps is None:
        raise DataError(
            f"{name}: clips of {frames} frames do not fit into half a shot; at most {ever} fit"
        )
    most = max(
        sum(_offset(shot, k, fps) < shot.longest_clip for k in range(ever))
        for shot in SHOTS
        if _has_rate(shot, fps)
    )
    raise DataError(
        f"{name}: clips of {frames} frames at {fps:g} fps do not fit into half a shot; at most "
        f"{most} fit at that rate, and {ever} without fps"
    )


def _has_rate(shot: Shot, fps: float | None) -> bool:
    return fps is None or fps <= math.ceil(VIDEOS[shot.video].rate)


def _offset(shot: Shot, frame: int, fps: float | None) -> int:
    """How many of the video's frames lie between the first of a clip and another, at 1 / fps s."""
    # 30 fps of a video of 29.97: every frame, none of them twice.
    step = 1.0 if fps is None else max(1.0, float(VIDEOS[shot.video].rate) / fps)
    return math.floor(frame * step + 0.5)


def _square(
    region: Box, largest: int, resolution: int, scale: float, across: float, down: float
) -> Box:
    """A square in a region; scale, across and down are uniform in [0, 1)."""
    smallest = min(resolution, largest)
    side = min(largest, round(smallest * (largest / smallest) ** scale))
    left, top, right, bottom = region
    x = left + int(across * (right - left - side + 1))
    y = top + int(down * (bottom - top - side + 1))
    return (x, y, x + side, y + side)


def _uniform(key: int, index: int, count: int) -> list[float]:
    """Up to four numbers in [0, 1) that belong to an index."""
    random = np.random.Philox(key=key, counter=[index, 0, 0, 0])
    # Raw 64-bit words: numpy guarantees their stream, but not that of its distributions.
    return [float(word >> np.uint64(11)) * 2.0**-53 for word in random.random_raw(count)]


@lru_cache(maxsize=16)
def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
