"""The curves, the pictures and the end of the log in a task's run folder.

Everything here is asked by the id of a task and a number, never by a path: what a browser sends
cannot name a file. What is missing or half written gives nothing instead of an error, since people
look while attempts write.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweepctl.errors import RunFolderError
from sweepctl.runs import attempt_folder, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PictureKind = Literal["original", "reconstruction", "sample"]

FILES: Mapping[str, str] = {
    "original": "originals.npy",
    "reconstruction": "reconstructions.npy",
    "sample": "samples.npy",
}
"""Kind of picture -> the array that holds it, uint8 (N, H, W, 3) or (N, T, H, W, 3)."""

MOST_PICTURES = 64
CURVE_POINTS = 400
LOG_BYTES = 64_000
_TASK = re.compile(r"[a-z0-9_]{1,40}-[0-9a-f]{16}")
_NO_MEASURE = frozenset({"t", "step", "steps", "eta_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How one measure of a training went.

    Attributes:
        name: loss, a part of it, or samples_per_s.
        steps: training steps, ascending.
        values: the measure at those steps, finite.
    """

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def task_folder(runs: Path, task: str) -> Path | None:
    """The folder of a task, or None when the id is no id or there is no such folder."""
    if not _TASK.fullmatch(task):
        return None
    folder = runs / task
    return folder if folder.is_dir() else None


def log_tail(folder: Path, attempt: int, lines: int = 60) -> str:
    """The last lines of an attempt's log; empty when there is none."""
    path = attempt_folder(folder, attempt) / "log.txt"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def log_mark(folder: Path, attempt: int) -> str:
    """Changes when the attempt has written more."""
    sizes = []
    for name in ("log.txt", "events.jsonl"):
        try:
            sizes.append((attempt_folder(folder, attempt) / name).stat().st_size)
        except OSError:
            sizes.append(-1)
    return ".".join(map(str, sizes))


def newest_log_mark(folder: Path) -> str:
    """Changes when the newest attempt has written more."""
    try:
        numbers = [int(one.name) for one in (folder / "attempts").iterdir() if one.name.isdigit()]
    except OSError:
        return ""
    return log_mark(folder, max(numbers)) if numbers else ""


def curves(folder: Path, attempt: int) -> tuple[Curve, ...]:
    """The curves of a training: those of its result, or those of the running attempt so far."""
    try:
        raw = read_json(folder / "result.json").get("values", {}).get("curve", [])
    except (RunFolderError, AttributeError):
        raw = None
    if raw is None:
        raw = _events(attempt_folder(folder, attempt) / "events.jsonl")
    found: dict[str, list[tuple[float, float]]] = {}
    for entry in raw if isinstance(raw, list) else []:
        if not isinstance(entry, Mapping) or not _is_number(entry.get("step")):
            continue
        for name, value in entry.items():
            if name not in _NO_MEASURE and _is_number(value):
                found.setdefault(str(name), []).append((float(entry["step"]), float(value)))
    return tuple(
        Curve(name=name, steps=steps, values=values)
        for name, points in found.items()
        if len(points) > 1
        for steps, values in [_thinned(points)]
    )


def _events(path: Path) -> list[Any]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    events = []
    for line in lines[:: max(1, len(lines) // (2 * CURVE_POINTS))]:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # the line that is being written
    return events


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thinned(points: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    kept = points[:: max(1, math.ceil(len(points) / CURVE_POINTS))]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return tuple(step for step, _ in kept), tuple(value for _, value in kept)


# --- pictures ---------------------------------------------------------------------------------


def count(folder: Path, kind: str) -> int:
    """How many pictures of a kind a task shows, at most `MOST_PICTURES`."""
    array = _array(folder, kind)
    return 0 if array is None else min(len(array), MOST_PICTURES)


def picture(folder: Path, kind: str, index: int, *, thumbnail: bool = False) -> bytes | None:
    """One picture as PNG, a clip as a WebP that moves; None when there is none.

    Args:
        folder: the task's folder.
        kind: key of `FILES`.
        index: from 0.
        thumbnail: make it small enough for a report: at most 128 pixels a side, lossy when larger
            than that.
    """
    array = _array(folder, kind)
    if array is None or not 0 <= index < min(len(array), MOST_PICTURES):
        return None
    return encoded(array[index], thumbnail=thumbnail)


def encoded(pixels: NDArray[np.uint8], *, thumbnail: bool = False) -> bytes:
    """uint8 (H, W, 3) as PNG, (T, H, W, 3) as WebP."""
    import numpy as np
    from PIL import Image

    frames = [
        Image.fromarray(np.asarray(one)) for one in (pixels if pixels.ndim == 4 else [pixels])
    ]
    if thumbnail:
        for frame in frames:
            frame.thumbnail((128, 128))
    buffer = io.BytesIO()
    if len(frames) > 1:
        frames[0].save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=125,
            loop=0,
            lossless=not thumbnail,
        )
    elif thumbnail and max(pixels.shape[:2]) > 64:
        frames[0].save(buffer, "WEBP", quality=88)
    else:
        frames[0].save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def media_type(data: bytes) -> str:
    """MIME type of what `picture` gives."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/webp"


def _array(folder: Path, kind: str) -> NDArray[np.uint8] | None:
    import numpy as np

    if kind not in FILES:
        return None
    try:
        array: NDArray[np.uint8] = np.load(folder / FILES[kind], mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None  # not made, being made, or removed
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or array.shape[-1] != 3:
        return None
    return array


def sheets(folder: Path) -> tuple[Path, ...]:
    """Sheets of samples that a training or a generator left, oldest first."""
    found: Iterable[Path] = (folder / "sheets").glob("*.png")
    return tuple(sorted(found)) or tuple(sorted(folder.glob("*sheet*.png")))
