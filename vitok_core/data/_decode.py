"""From a source file to pixels: found in its package, checked by SHA-256, decoded.

Packages are looked up and never imported. A file that is not the pinned one is refused: other
pixels under the same identity would spoil every comparison.

Of a video all frames are decoded in order, so that a frame is what every player shows, however the
codec predicted it. H.264 decodes to the same YUV values everywhere; its conversion to RGB is not
part of that standard and differs between processors, so it is done here, in whole numbers.
"""

from __future__ import annotations

import hashlib
import importlib.util
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._sources import Picture, Video
from vitok_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


def open_picture(picture: Picture) -> Image:
    """The decoded picture, RGB.

    Raises:
        DataError: its file is missing or not the pinned one.
    """
    from PIL import Image

    with Image.open(BytesIO(_read(picture, "picture"))) as image:
        return image.convert("RGB")


def decode_video(video: Video) -> NDArray[np.uint8]:
    """All frames of a video, uint8 (F, H, W, 3): at most 131 MB.

    Raises:
        DataError: its file is missing or not the pinned one, PyAV is missing or cannot decode it.
    """
    if importlib.util.find_spec("av") is None:
        raise DataError(
            'clips are decoded by PyAV, which is not installed; run: pip install "sweepctl[video]"'
        )
    import av

    shape = (video.frames, video.height, video.width, 3)
    frames, count = np.empty(shape, np.uint8), 0
    try:
        with av.open(BytesIO(_read(video, "video"))) as container:
            for frame in container.decode(video=0):
                if count < video.frames and (frame.height, frame.width) == shape[1:3]:
                    frames[count] = _rgb(frame)
                count += 1
    except av.FFmpegError as error:
        raise DataError(
            f"PyAV {av.__version__} cannot decode the video {video.name}: {error}"
        ) from (error)
    if count != video.frames:
        raise DataError(
            f"PyAV {av.__version__} finds {count} frames in the video {video.name}, expected "
            f"{video.frames}; install another version of av"
        )
    return frames


def _rgb(frame: Any) -> NDArray[np.uint8]:
    """A frame of studio-range YUV 4:2:0 as RGB, by ITU-R BT.601; chroma is repeated, not blended.

    The coefficients are those of the standard times 256. The videos name no colour matrix; players
    take BT.601 for pictures of this size.
    """
    height, width = frame.height, frame.width
    planes: NDArray[np.int32] = frame.to_ndarray(format="yuv420p").astype(np.int32)
    y = 298 * (planes[:height] - 16) + 128
    u, v = planes[height:].reshape(2, height // 2, width // 2) - 128
    rgb = np.stack([y + _doubled(c) for c in (409 * v, -100 * u - 208 * v, 516 * u)], axis=-1)
    pixels: NDArray[np.uint8] = np.clip(rgb >> 8, 0, 255).astype(np.uint8)
    return pixels


def _doubled(plane: NDArray[np.int32]) -> NDArray[np.int32]:
    return plane.repeat(2, axis=0).repeat(2, axis=1)


def _read(source: Picture | Video, what: str) -> bytes:
    """The file's content, after its hash has been checked."""
    remedy = f"run: pip install {source.install}"
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise DataError(
            f"the {what} {source.name} comes with the package {source.package}, which is not "
            f"installed; {remedy}"
        )
    path = Path(spec.origin).parent / source.file
    if not path.is_file():
        raise DataError(f"{path} is missing; run: pip install --force-reinstall {source.install}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise DataError(
            f"{path} is not the {what} this data set is made of: its SHA-256 is {found}, expected "
            f"{source.sha256}; install another version of the package (pip install "
            f"{source.install})"
        )
    return content
