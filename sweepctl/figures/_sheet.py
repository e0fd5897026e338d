"""Picture sheets: originals on top, a row of reconstructions per cell, ordered by E.

A clip is drawn as some of its frames side by side, closer to each other than to the next clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.errors import UsageError
from sweepctl.figures._matplotlib import writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_READABLE = 112
"""Side in pixels below which pictures are enlarged by a whole factor."""

_CLIP_FRAMES = 4
"""Frames that are drawn of a clip: the first, the last and some between."""

_CLIP_COLUMNS = 12
"""Most pictures in a row of clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """The reconstructions of one cell.

    Attributes:
        label: what the row shows; two spaces begin a new line ("E=64  p 16 c 16  PSNR 21.3 dB").
        E: floating point numbers in the code; rows are ordered by it.
        originals: uint8, shape (N, H, W, 3), or (N, T, H, W, 3) for clips; the same in every row.
        reconstructions: uint8, of the same shape.
    """

    label: str
    E: float
    originals: NDArray[np.uint8]
    reconstructions: NDArray[np.uint8]


def sheet(rows: Sequence[SheetRow], out: Path) -> Path:
    """Draw originals and reconstructions as one PNG; small pictures are enlarged by whole pixels.

    Raises:
        UsageError: no rows, pictures of different shapes or types, or different originals; the
            folder cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    _check(rows)
    ordered = sorted(rows, key=lambda row: row.E)
    shown, together = _pictures(ordered[0].originals)
    count, height, width, _ = shown.shape
    factor = max(1, round(_READABLE / max(height, width)))
    tile_h, tile_w, gap, pad = height * factor, width * factor, 6, 16
    heading, body = ImageFont.load_default(17), ImageFont.load_default(14)
    labels = [["originals"], *(_lines(row.label) for row in ordered)]
    left = pad + max(
        int((heading if i == 0 else body).getlength(line)) + 1
        for lines in labels
        for i, line in enumerate(lines)
    )
    left += pad
    # A row is as high as its pictures or its label, whichever needs more.
    row_h = max(tile_h, *(26 + 19 * (len(lines) - 1) for lines in labels))
    places = [left + k * (tile_w + 1) + (gap - 1) * (k // together) for k in range(count)]
    size = (places[-1] + tile_w + pad, 2 * pad + len(labels) * (row_h + gap) - gap)
    canvas = Image.new("RGB", (size[0], size[1] + gap), "white")
    draw = ImageDraw.Draw(canvas)
    top = pad
    for index, lines in enumerate(labels):
        pictures = shown if index == 0 else _pictures(ordered[index - 1].reconstructions)[0]
        text_top = top + (row_h - (26 + 19 * (len(lines) - 1))) // 2
        for i, line in enumerate(lines):
            place = (pad, text_top + (0 if i == 0 else 7 + 19 * i))
            draw.text(place, line, font=body if i else heading, fill="#5b6472" if i else "#14181f")
        for column, picture in enumerate(pictures):
            tile = Image.fromarray(picture).resize((tile_w, tile_h), Image.Resampling.NEAREST)
            canvas.paste(tile, (places[column], top + (row_h - tile_h) // 2))
        top += row_h + gap
        if index == 0:  # a line sets the originals apart from what is measured against them
            draw.line((pad, top - gap // 2 + 1, size[0] - pad, top - gap // 2 + 1), fill="#9aa3b0")
            top += gap
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(out, format="PNG", optimize=True)
    return out


def _pictures(samples: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """The pictures of a row, (N, H, W, 3), and how many of them belong together."""
    if samples.ndim == 4:
        return samples, 1
    count, frames = samples.shape[:2]
    together = min(frames, _CLIP_FRAMES)
    chosen = np.linspace(0, frames - 1, together).round().astype(int)
    clips = samples[: max(1, min(count, _CLIP_COLUMNS // together)), chosen]
    return clips.reshape(-1, *samples.shape[2:]), together


def _lines(label: str) -> list[str]:
    return [part.strip() for part in label.split("  ") if part.strip()] or [""]


def _check(rows: Sequence[SheetRow]) -> None:
    if not rows:
        raise UsageError("a picture sheet needs at least one cell with reconstructions")
    first = rows[0].originals
    if first.ndim not in (4, 5) or first.shape[-1] != 3 or not first.size:
        raise UsageError(
            f"pictures must have shape (N, H, W, 3), clips (N, T, H, W, 3); given {first.shape}"
        )
    for row in rows:
        for pictures in (row.originals, row.reconstructions):
            if pictures.shape != first.shape or pictures.dtype != np.uint8:
                raise UsageError(
                    f"row {row.label!r} has pictures {pictures.dtype} {pictures.shape}; "
                    f"all rows must be uint8 {first.shape}"
                )
        if not np.array_equal(row.originals, first):
            raise UsageError(
                f"row {row.label!r} was reconstructed from other originals than {rows[0].label!r}; "
                "draw one sheet per data set"
            )
