"""A built-in data set on disk: cut once into one uint8 array, written whole or not at all.

Samples are written one after the other, so memory holds the decoded sources and one sample. A crop
is cut out of its source before it is resized, so no pixel outside its box is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._crops import fitting_shots, plan_clip, plan_crop
from vitok_core.data._datasets import DatasetInfo, dataset
from vitok_core.data._decode import decode_video, open_picture
from vitok_core.data._sources import PICTURES, SHOTS, VIDEOS
from vitok_core.errors import DataError, Stopped
from vitok_core.files import replacing, sha256_of

REPORT = 256
"""Images between two reports; of clips, as many as have so many frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenFile:
    """A file that gave no sample.

    Attributes:
        name: relative to its data set.
        why: kind of the fault.
        detail: what is known beyond it; may be empty.
    """

    name: str
    why: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInfo:
    """What `prepare`, or `prepare_own`, has written.

    Attributes:
        name: of the data set.
        resolution: side of an image in pixels.
        images: number of images, or of clips.
        frames: of a sample; 1 for images.
        fps: frames per second that were asked for; None for every frame of the videos.
        sources: names of the pictures or shots that samples were cut from; empty for user-defined
            data sets.
        samples_bytes: size of samples.npy.
        samples_sha256: of samples.npy.
        labels_sha256: of labels.npy.
        read: files that were read for it; 0 where no list of files was gone through.
        handled: what was done to files that are not plain RGB -> how many.
        broken: files that were passed over.
    """

    name: str
    resolution: int
    images: int
    frames: int
    fps: float | None
    sources: tuple[str, ...]
    samples_bytes: int
    samples_sha256: str
    labels_sha256: str
    read: int = 0
    handled: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[BrokenFile, ...] = ()


Cutter = Callable[[int], tuple[int, NDArray[np.uint8]]]
"""Index -> label and sample."""


def prepare(
    name: str,
    *,
    resolution: int,
    images: int,
    frames: int = 1,
    fps: float | None = None,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> PreparedInfo:
    """Cut samples and write samples.npy and labels.npy (int64, N).

    samples.npy is uint8, N x H x W x 3; with several frames N x T x H x W x 3.

    Args:
        name: key into `DATASETS`.
        resolution: side of an image in pixels, at least 8.
        images: how many images or clips, at least 1; sample i does not depend on it.
        frames: of a sample; more than 1 only for sets of videos. A set of videos with 1 gives
            images.
        fps: frames per second of clips, by the nearest frame of the video; None for its own rate.
        folder: where the two files go; made if missing. Each is written whole or not at all.
        progress: called with (done, total) every 256 images, or every clips of so many frames.
        should_stop: asked then.

    Raises:
        DataError: unknown name, numbers out of range, clips that no shot is long enough for, or a
            source file or its decoder that is missing or not the pinned one.
        Stopped: `should_stop` said so; nothing was written.
        OSError: the disk is full or the folder cannot be written.
    """
    info = dataset(name)
    _check(info, resolution, images, frames, fps)
    if info.video:
        shots = fitting_shots(name, frames=frames, fps=fps)
        sources = tuple(SHOTS[number].name for number in shots)
        cut = _clips(name, resolution, frames, fps, {SHOTS[number].video for number in shots})
    else:
        sources = tuple(picture.name for picture in PICTURES)
        cut = _crops(name, resolution)
    labels = np.empty(images, np.int64)
    one = (resolution, resolution, 3) if frames == 1 else (frames, resolution, resolution, 3)
    every = max(1, REPORT // frames)

    def write_samples(file: IO[bytes]) -> None:
        # Written, not memory-mapped: a full disk is then an error and not a bus error.
        header = {"descr": "|u1", "fortran_order": False, "shape": (images, *one)}
        np.lib.format.write_array_header_2_0(file, header)
        for index in range(images):
            if index % every == 0:
                _report(index, images, progress, should_stop)
            labels[index], sample = cut(index)
            file.write(sample.reshape(one).tobytes())
        _report(images, images, progress, None)

    folder.mkdir(parents=True, exist_ok=True)
    samples_sha256 = write_whole(folder / "samples.npy", write_samples)
    labels_sha256 = write_whole(folder / "labels.npy", lambda file: np.save(file, labels))
    return PreparedInfo(
        name=name,
        resolution=resolution,
        images=images,
        frames=frames,
        fps=fps,
        sources=sources,
        samples_bytes=(folder / "samples.npy").stat().st_size,
        samples_sha256=samples_sha256,
        labels_sha256=labels_sha256,
    )


def _check(info: DatasetInfo, resolution: int, images: int, frames: int, fps: float | None) -> None:
    what = "clip" if frames > 1 else "image"
    if resolution < 8 or images < 1 or frames < 1:
        raise DataError(
            f"{info.name}: resolution = {resolution}, images = {images} and frames = {frames}; "
            f"at least 8 px, 1 {what} and 1 frame are needed"
        )
    if frames > 1 and not info.video:
        raise DataError(
            f"{info.name} has single images, frames = {frames} cannot be had; give frames = 1, or "
            "take clips-train and clips-eval"
        )
    if fps is not None and frames == 1:
        raise DataError(
            f"{info.name}: fps = {fps:g} says nothing about single images; leave it out"
        )


def _crops(name: str, resolution: int) -> Cutter:
    """Cuts images out of the photographs, which stay in memory: at most 12 MB."""
    from PIL import Image

    pictures = [open_picture(picture) for picture in PICTURES]

    def cut(index: int) -> tuple[int, NDArray[np.uint8]]:
        crop = plan_crop(name, resolution=resolution, index=index)
        part = pictures[crop.picture].crop(crop.box)
        small = part.resize((resolution, resolution), Image.Resampling.BICUBIC)
        return crop.picture, np.asarray(small)

    return cut


def _clips(name: str, resolution: int, frames: int, fps: float | None, videos: set[int]) -> Cutter:
    """Cuts clips out of the decoded videos, which stay in memory: at most 140 MB."""
    from PIL import Image

    decoded = {number: decode_video(VIDEOS[number]) for number in sorted(videos)}

    def cut(index: int) -> tuple[int, NDArray[np.uint8]]:
        clip = plan_clip(name, resolution=resolution, frames=frames, fps=fps, index=index)
        left, top, right, bottom = clip.box
        source = decoded[SHOTS[clip.shot].video]
        small = [
            Image.fromarray(source[number, top:bottom, left:right]).resize(
                (resolution, resolution), Image.Resampling.BICUBIC
            )
            for number in clip.frames
        ]
        return clip.shot, np.stack([np.asarray(frame) for frame in small])

    return cut


def _report(
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    if should_stop is not None and should_stop():
        raise Stopped(f"preparing stopped at sample {done} of {total}; nothing was written")
    if progress is not None:
        progress(done, total)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> str:
    """Write a file whole or not at all; the SHA-256 of what was written."""
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            write(file)
        return sha256_of(temporary)
