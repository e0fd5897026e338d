"""From a stored picture to a square of uint8 RGB, or to a reason why not.

Everything that is not plain 8-bit RGB is converted by one stated rule and noted, so that a data
set's report says what was in it; what has no stated rule is refused. Only formats that Pillow reads
by itself are opened: no outside program ever runs on a user's file.

The two ways to cut a square are those in use. "adm" is that of the guided-diffusion code and of
what followed it (DiT, RAE): halve by box averages while the short side is at least twice the
resolution, scale by the bicubic filter, cut from the middle. "center" is torchvision's `Resize` and
`CenterCrop` with their defaults, as in ViTok: scale by the bilinear filter, cut from the middle.
Streams can take a random box instead, see `_random_crops`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._own import Fit
from vitok_core.data._random_crops import Place, RandomBox

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose
    from PIL.ImageFile import ImageFile

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are opened."""

MOST_PIXELS = 89_478_485
"""Pixels of the largest picture that is decoded, Pillow's own limit: 256 MiB in RGB."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""

GREY, PALETTE, CMYK, ALPHA, SIXTEEN, TURNED, ANIMATED, ENLARGED, NO_EXIF, OTHER_MODE = (
    "grey",
    "palette",
    "CMYK",
    "alpha, put on white",
    "16-bit, high byte",
    "turned by EXIF",
    "animated, first frame",
    "enlarged",
    "unreadable EXIF, not turned",
    "other colour space",
)
"""What is done to a picture, and noted."""

MODES = {
    **dict.fromkeys(("RGB", "RGBA", "RGBa"), ""),
    **dict.fromkeys(("1", "L", "LA", "La"), GREY),
    **dict.fromkeys(("P", "PA"), PALETTE),
    **dict.fromkeys(("YCbCr", "HSV", "RGBX"), OTHER_MODE),
    "CMYK": CMYK,
}
"""Pixels that Pillow converts to RGB, and what is noted."""


class Unusable(Exception):
    """A file that gives no sample.

    Args:
        why: the kind of fault, which reports count by.
        detail: what is known beyond it, for people.
    """

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(f"{why}: {detail}" if detail else why)
        self.why, self.detail = why, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """A sample.

    Attributes:
        pixels: uint8, (R, R, 3), or (T, R, R, 3) of a clip.
        notes: what was done to it beyond cutting and scaling.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow's remarks about files, which are noted here in other words, are not printed.

    Warnings are a matter of the whole process: enter before threads decode, leave after them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


MIDDLE: Place = (0.5, 0.5)
"""The place of a square that is cut from the middle."""


def read_square(
    content: bytes, *, resolution: int, crop: Fit, place: Place | RandomBox = MIDDLE
) -> Square:
    """Decode a picture, convert it to RGB and cut a square, by default the middle one.

    Args:
        content: the file.
        resolution: side of the square in pixels.
        crop: how it is cut.
        place: of the square, see `square`.

    Raises:
        Unusable: it is not a picture, is damaged or too large, or its colours have no rule here.
    """
    if not content:
        raise Unusable("empty file", "0 bytes")
    decoded, sixteen, notes = _decoded(content)
    image = _rgb(decoded, sixteen, notes)
    width, height = image.size
    if min(width, height) < resolution:
        notes.append(ENLARGED)
    scaled = resolution**2 * max(width, height) / min(width, height)
    if scaled > MOST_PIXELS:
        raise Unusable(
            "too long and thin",
            f"{width} x {height}; with the short side at {resolution} it has {scaled:,.0f} pixels",
        )
    return Square(pixels=square(image, resolution, crop, place), notes=tuple(notes))


def square(
    image: Image, resolution: int, crop: Fit, place: Place | RandomBox = MIDDLE
) -> NDArray[np.uint8]:
    """A square of an RGB picture, uint8 (R, R, 3).

    Args:
        image: of any size.
        resolution: R; the picture's short side is brought to it first.
        crop: how that is done.
        place: of the square; the middle one is cut as the two ways define it, roundings and all. A
            random box is cut before anything is scaled, whatever `crop` says.
    """
    from PIL.Image import Resampling

    if isinstance(place, RandomBox):
        part = image.crop(place.of(*image.size))
        return np.asarray(part.resize((resolution, resolution), Resampling.BILINEAR))
    width, height = image.size
    if crop == "adm":
        while min(width, height) >= 2 * resolution:
            width, height = width // 2, height // 2
            image = image.resize((width, height), Resampling.BOX)
        scale = resolution / min(width, height)
        # At least the resolution: a rounding must not leave a black edge.
        size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
        image = image.resize(size, Resampling.BICUBIC)
        left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    else:
        long = int(resolution * max(width, height) / min(width, height))
        size = (resolution, long) if width <= height else (long, resolution)
        image = image.resize(size, Resampling.BILINEAR)
        left, top = round((size[0] - resolution) / 2), round((size[1] - resolution) / 2)
    if place != MIDDLE:
        left, top = (
            min(int(at * (side - resolution + 1)), side - resolution)
            for at, side in zip(place, size, strict=True)
        )
    box = (left, top, left + resolution, top + resolution)
    return np.asarray(image.crop(box))


def _decoded(content: bytes) -> tuple[Image, bool, list[str]]:
    """The first frame of a picture, whether its colours have 16 bits, and notes."""
    import PIL
    from PIL import Image

    try:
        image = _opened(content)
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise Image.DecompressionBombError(f"{width} x {height}")
        # Only the decoder knows: Pillow shows 16 bits a colour as 8, the high byte.
        sixteen = re.search(r"16|65535", str([tile.args for tile in image.tile])) is not None
        image = _loaded(image, content)
        # An MPO is a JPEG with a second view, not an animation.
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
    except PIL.UnidentifiedImageError:
        raise Unusable("no picture", f"none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        limit = f"at most {MOST_PIXELS:,} pixels are decoded"
        raise Unusable("too large", f"{error}; {limit}") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever it stumbles over
        raise Unusable("damaged", str(error) or type(error).__name__) from None
    return image, sixteen, [ANIMATED] if animated else []


def _opened(content: bytes) -> ImageFile:
    """An image whose header was read; of a PNG with more text than Pillow takes, without text."""
    from PIL import Image

    try:
        return Image.open(BytesIO(content), formats=FORMATS)
    except ValueError:
        # Pillow refuses 1 MiB of text in a chunk, and 64 MiB in a file. Pixels need none of it.
        pixels = without_text(content)
        if pixels == content:
            raise
        return Image.open(BytesIO(pixels), formats=FORMATS)


def _loaded(image: ImageFile, content: bytes) -> ImageFile:
    """The image with its pixels; text that stands behind them counts no more than in `_opened`."""
    try:
        image.load()
    except ValueError:
        pixels = without_text(content)
        if pixels == content:
            raise
        image = _opened(pixels)
        image.load()
    return image


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks that hold text or a color profile, which is not applied to pixels here."""


def without_text(content: bytes) -> bytes:
    """A PNG without its chunks of text and color profile; anything else, or a broken one, as it is.

    A file that says in oversized XMP how it is to be turned is not turned.
    """
    if not content.startswith(PNG_SIGNATURE):
        return content
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in PNG_TEXT:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _rgb(image: Image, sixteen: bool, notes: list[str]) -> Image:
    """A decoded picture as upright RGB; adds to the notes what had to be done."""
    import PIL.Image

    turn, mode = _turn(image, notes), image.mode
    if sixteen:
        notes.append(SIXTEEN)
    if mode.startswith("I") and sixteen:
        # Pillow's own conversion would cut everything above 255 off.
        high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        image, mode = PIL.Image.fromarray(high), "L"
    if mode not in MODES:
        raise Unusable("unknown pixels", f"Pillow calls them {mode}; 8 or 16 bits are needed")
    if MODES[mode]:
        notes.append(MODES[mode])
    if image.has_transparency_data:
        notes.append(ALPHA)
        image = on_white(image)
    if image.mode != "RGB":  # else it would be copied
        image = image.convert("RGB")
    if turn is not None:
        notes.append(TURNED)
        image = image.transpose(turn)
    return image


def on_white(image: Image) -> Image:
    """A picture or a frame with alpha as RGB on white: the one rule for both."""
    import PIL.Image

    image = image.convert("RGBA")
    white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
    return PIL.Image.alpha_composite(white, image).convert("RGB")


def _turn(image: Image, notes: list[str]) -> Transpose | None:
    """How a picture has to be turned to be upright."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - Pillow raises whatever it stumbles over
        notes.append(NO_EXIF)
        return None
    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
