"""Files for tests of own data sets: pictures, folders, shards, videos, and what is wrong with some.

Run as a program it prepares a scanned data set in a process of its own, see `test_readers`.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import tarfile
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 24


def pixels(seed: int, width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    """Smooth colours, different for each seed."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + 3 * channel) / (5 + seed % 7) + y / 4 + seed) for channel in range(3)]
    return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(seed: int, width: int = SIDE, height: int = SIDE) -> bytes:
    return encoded(Image.fromarray(pixels(seed, width, height)))


def raw_png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand: Pillow writes no 16-bit colours and no picture that is a lie."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data) & 0xFFFFFFFF)
        )

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def kinds_of_pictures() -> dict[str, bytes]:
    """File name -> content: every kind that a report speaks of, and plain ones."""
    image = Image.fromarray(pixels(1))
    clear = np.dstack([pixels(2), np.full((SIDE, SIDE), 128, np.uint8)])
    deep = (pixels(3).astype(np.uint16) << 8) + 77
    deep_rows = b"".join(b"\0" + deep[row].astype(">u2").tobytes() for row in range(SIDE))
    turned = image.getexif()
    turned[0x0112] = 6
    frames = [Image.fromarray(pixels(seed)).quantize() for seed in (4, 5)]
    jpeg = encoded(Image.fromarray(pixels(6, 200, 200)), "JPEG")
    return {
        "01-plain.png": encoded(image),
        "02-plain.jpg": jpeg,
        "03-capitals.JPEG": encoded(image, "JPEG"),
        "04-webp.webp": encoded(image, "WEBP", lossless=True),
        "05-cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "06-palette.png": encoded(image.quantize()),
        "07-alpha.png": encoded(Image.fromarray(clear)),
        "08-grey.png": encoded(image.convert("L")),
        "09-bits.png": encoded(image.convert("1")),
        "10-sixteen-grey.png": encoded(Image.fromarray(deep[..., 0])),
        "11-sixteen-colours.png": raw_png(SIDE, SIDE, 16, 2, deep_rows),
        "12-turned.jpg": encoded(image, "JPEG", exif=turned),
        "13-animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "14-small.png": png(7, 6, 5),
        "15-float.tiff": encoded(Image.fromarray(np.ones((SIDE, SIDE), np.float32)), "TIFF"),
        "16-empty.png": b"",
        "17-truncated.jpg": jpeg[: len(jpeg) // 2],
        "18-text.png": b"this is no picture\n",
        "19-bomb.png": raw_png(40_000, 40_000, 8, 2, b"\0"),
        "20-thread.png": raw_png(10**6, 1, 8, 0, bytes(1 + 10**6)),
        "21-page.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "22-cut.png": png(8)[:100],
    }


HANDLED = {
    "16-bit, high byte": 2,
    "CMYK": 1,
    "alpha, put on white": 1,
    "animated, first frame": 1,
    "enlarged": 1,
    "grey": 3,
    "palette": 2,
    "turned by EXIF": 1,
}
BROKEN = {
    "15-float.tiff": "unknown pixels",
    "16-empty.png": "empty file",
    "17-truncated.jpg": "damaged",
    "18-text.png": "no picture",
    "19-bomb.png": "too large",
    "20-thread.png": "too long and thin",
    "21-page.png": "no picture",
    "22-cut.png": "damaged",
}
"""What `kinds_of_pictures` has to come to, at 16 px."""


def picture_folder(folder: Path, classes: dict[str, int]) -> Path:
    """A folder of PNG files in classes of so many each."""
    seed = 0
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number:04d}.png").write_bytes(png(seed))
            seed += 1
    return folder


def shard(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> Path:
    """A tar file of (key, ending -> content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, parts in samples:
            for ending, content in parts.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def shards(folder: Path, count: int, samples: int) -> str:
    """Shards of PNG files with labels; the pattern that names them."""
    for number in range(count):
        shard(
            folder / f"part-{number:03d}.tar",
            [
                (
                    f"{seed:05d}",
                    {"png": png(seed), "json": b"{}", "cls": str(seed % 5).encode()},
                )
                for seed in range(number * samples, (number + 1) * samples)
            ],
        )
    return str(folder / f"part-{{000..{count - 1:03d}}}.tar")


def video(
    path: Path,
    *,
    frames: int,
    rate: int = 25,
    times_ms: list[int] | None = None,
    size: tuple[int, int] = (48, 32),
) -> Path:
    """A video whose frame k is of one grey, 4 k, losslessly coded; times by rate or as given."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if times_ms is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            grey = np.full((size[1], size[0], 3), 4 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def sound(path: Path) -> Path:
    """A file with sound only."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = np.zeros((1, 800), np.int16)
        frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def many_tiny(path: Path, count: int) -> Path:
    """One shard of many 8 px pictures, uncompressed as PPM, all different."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            content = b"P6 8 8 255\n" + colours[number].tobytes()
            member = tarfile.TarInfo(f"{number:06d}.ppm")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _prepare(place: str, kind: str, images: str, folder: str) -> None:
    """Scan and prepare in this process; says how far it is, and at the end what it took."""
    from vitok_core.data import OwnData, prepare_own, scan

    own = OwnData(name="own", kind=kind, place=place)  # type: ignore[arg-type]
    scanned = scan(own, threads=2)

    def told(done: int, total: int) -> None:
        print(json.dumps({"done": done, "total": total}), flush=True)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    info = prepare_own(
        scanned, resolution=8, images=int(images), folder=Path(folder), threads=2, progress=told
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "grown_bytes": 1024 * (peak - before),
                "peak_bytes": 1024 * peak,
                "sha256": info.samples_sha256,
                "images": info.images,
            }
        )
    )


if __name__ == "__main__":
    assert os.environ["VITOK_SCANS"]
    _prepare(*sys.argv[1:])
