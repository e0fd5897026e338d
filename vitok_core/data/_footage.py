"""From a video to a clip: frames chosen by their times, cut to squares as pictures are.

A video is decoded from its beginning, twice: for the times of its frames, which containers do not
tell reliably, and for those that were chosen. So a frame is what every player shows, and memory
holds the frames of one clip. Where a clip begins is drawn from (the file's hash, the round, the
clip's shape) alone; no clip comes twice before all of its video have come.

Colours are converted by FFmpeg, which may differ between processors in the last bit.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._own import ORDER, Fit
from vitok_core.data._pixels import (
    ALPHA,
    MIDDLE,
    MOST_PIXELS,
    Square,
    Unusable,
    on_white,
    square,
)
from vitok_core.data._random_crops import Place, RandomBox
from vitok_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

VARIABLE, TURNED, OBLONG = (
    "variable frame rate, by the times of the frames",
    "turned by its rotation",
    "oblong pixels, taken as square",
)
"""What is done to a video, and noted."""

UNEVEN = 1.5
"""Longest over shortest time between two frames from which a rate is called variable."""


def need_av() -> None:
    """Refuse to work without PyAV.

    Raises:
        DataError: it is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise DataError(
            'videos are decoded by PyAV, which is not installed; run: pip install "sweepctl[video]"'
        )


def read_clip(
    path: Path,
    *,
    key: bytes,
    turn: int,
    frames: int,
    fps: float | None,
    resolution: int,
    crop: Fit,
    place: Place | RandomBox = MIDDLE,
) -> Square:
    """One clip of a video.

    Args:
        path: the file.
        key: SHA-256 of the file.
        turn: number of the clip among those of this video, from 0.
        frames: of the clip, at least 1.
        fps: frames per second, each the nearest of the video's; None takes every frame.
        resolution: side of a frame in pixels.
        crop: how frames are cut.
        place: where, the same in all of them; see `square`.

    Raises:
        Unusable: it is not a video, is damaged, has no picture, or too few frames.
        DataError: PyAV is missing.
    """
    need_av()
    import av

    try:
        times, notes = _times(path)
        wanted = choose_frames(times, key=key, turn=turn, frames=frames, fps=fps)
        pixels = np.empty((frames, resolution, resolution, 3), np.uint8)
        done = 0
        with av.open(str(path)) as container:
            for number, frame in enumerate(_frames(container)):
                if number == wanted[done]:
                    pixels[done] = square(_upright(frame), resolution, crop, place)
                    done += 1
                    if done == frames:
                        break
    # A container that is none of FFmpeg's, an attribute that it does not fill: ValueError.
    except (av.FFmpegError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)  # without the path
        raise Unusable("damaged", said) from None
    if done < frames:
        raise Unusable("damaged", f"{done} of {frames} frames could be decoded twice")
    return Square(pixels=pixels if frames > 1 else pixels[0], notes=tuple(notes))


def choose_frames(
    times: NDArray[np.float64], *, key: bytes, turn: int, frames: int, fps: float | None
) -> list[int]:
    """Which frames become a clip: numbers, strictly rising.

    Args:
        times: of all frames of the video in s, rising.
        key: SHA-256 of the file.
        turn: number of the clip.
        frames: of the clip.
        fps: frames per second, or None.

    Raises:
        Unusable: the video is too short, or has fewer frames per second.
    """
    count = len(times)
    if fps is None:
        if count < frames:
            raise Unusable("too short", f"{count} frames, {frames} are needed")
        starts = np.arange(count - frames + 1)
        chosen = starts[:, None] + np.arange(frames)
    else:
        chosen = _nearest(times, times[:, None] + np.arange(frames) / fps)
        # The last frame is shown for some time; half of that is the rounding to the nearest.
        shown = float(np.median(np.diff(times))) if count > 1 else 0.0
        fits = times + (frames - 1) / fps <= times[-1] + 0.5 * shown
        distinct = (np.diff(chosen, axis=1) > 0).all(axis=1)
        if not fits.any():
            length = times[-1] - times[0]
            raise Unusable(
                "too short", f"{length:.2f} s, {frames} frames at {fps:g} a second are needed"
            )
        if not (fits & distinct).any():
            raise Unusable("too few frames per second", f"it has not {fps:g} per second anywhere")
        chosen = chosen[fits & distinct]
    shape = f"own clip {ORDER} {frames} {'every' if fps is None else repr(float(fps))}"
    drawn = hashlib.sha256(key + shape.encode()).digest()[:16]
    # Without putting back: no clip comes twice before all have come.
    words = np.random.Philox(key=int.from_bytes(drawn, "little")).random_raw(len(chosen))
    place = np.argsort(words, kind="stable")[turn % len(chosen)]
    return [int(number) for number in chosen[place]]


def _nearest(times: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    right = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    right = np.minimum(right, len(times) - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.abs(times[right] - wanted) < np.abs(wanted - times[left])
    return np.where(nearer, right, left)


def _times(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """When each frame is shown, in s, and what is to be noted of the video."""
    import av

    notes: list[str] = []
    with av.open(str(path)) as container:
        # The cover of a music file is a stream of one picture.
        films = [one for one in container.streams.video if not _is_cover(one)]
        if not films:
            raise Unusable("no video stream", "sound or a cover only")
        if films[0].index != container.streams.video[0].index:
            raise Unusable("no video stream", "a cover comes before it")
        stream = films[0]
        if stream.width * stream.height > MOST_PIXELS or stream.width * stream.height < 1:
            size = f"{stream.width} x {stream.height}"
            raise Unusable("too large", f"{size}; at most {MOST_PIXELS:,} pixels are decoded")
        rate = float(stream.average_rate or 0)
        times = []
        for number, frame in enumerate(_frames(container)):
            if number == 0 and frame.rotation % 360:
                notes.append(TURNED)
            if number == 0 and _has_alpha(frame):
                notes.append(ALPHA)
            if frame.time is None and not rate:
                raise Unusable("damaged", "neither its frames nor the file say when they are shown")
            times.append(number / rate if frame.time is None else float(frame.time))
        shape = stream.sample_aspect_ratio
    if not times:
        raise Unusable("no video stream", "not one frame can be decoded")
    if shape not in (None, 0, 1):
        notes.append(OBLONG)
    shown = np.asarray(times)
    steps = np.diff(shown)
    if (steps <= 0).any():
        raise Unusable("damaged", "its frames do not come in the order of their times")
    if len(steps) and steps.max() > UNEVEN * steps.min():
        notes.append(VARIABLE)
    return shown, notes


def _is_cover(stream: Any) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


VPX_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs whose alpha is a second stream in each packet, and the decoders that read it."""


def _frames(container: Any) -> Iterator[Any]:
    """All frames of the first video stream, with their alpha where they have some.

    Raises:
        Unusable: the stream has an alpha that no decoder of this PyAV reads.
    """
    import av

    stream = container.streams.video[0]
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    decoder = VPX_DECODERS.get(stream.codec_context.name)
    if tags.get("alpha_mode") != "1" or decoder is None:
        yield from container.decode(video=0)
        return
    # FFmpeg's own decoders of these codecs drop alpha and show what lies under it.
    if decoder not in av.codecs_available:
        raise Unusable("alpha", f"PyAV {av.__version__} has no {decoder}, which alone reads it")
    context = av.CodecContext.create(decoder, "r")
    for packet in container.demux(stream):
        for frame in context.decode(packet):
            frame.time_base = packet.time_base or stream.time_base
            yield frame


def _has_alpha(frame: Any) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _upright(frame: Any) -> Image:
    """A frame as an RGB picture, turned as its file says."""
    from PIL import Image

    alpha = _has_alpha(frame)
    pixels = frame.to_ndarray(format="rgba" if alpha else "rgb24")
    # PyAV tells degrees counter-clockwise; a quarter turn at a time.
    turned = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
    image = Image.fromarray(turned)
    return on_white(image) if alpha else image
