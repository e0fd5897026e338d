"""How many images does a core decode per second, and how many does it read from a prepared array?

JPEGs of 500 x 375 pixels, cut from the photographs of the data set `photos` and encoded at quality
90, become squares of 256 px. Ours are whole: the file is read, its SHA-256 compared, it is decoded,
cut and put into the buffer of a batch. The others read the file, decode, scale and cut as usual
training scripts do. Everything runs in one process, with one decoder, in turns; what counts is the
processor time of all threads, the best of many short rounds. Libraries that are not installed are
left out; whether a decoder gives the bytes that Pillow gives stands behind it.

    python bench/loader.py [rounds]
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import InterpolationMode, v2

from vitok_core.data import (
    PICTURES,
    Draw,
    OwnData,
    SampleSet,
    StreamSet,
    channels_first,
    open_prepared,
    scan,
)
from vitok_core.data._decode import open_picture
from vitok_core.data._own import FITS

SIDE, ROWS, BATCH = 256, 512, 64
COUNT = len(PICTURES)
AIM_JPEG, AIM_ROWS = 270, 4500
CROPS = {
    "bilinear": v2.Compose([v2.Resize(SIDE), v2.CenterCrop(SIDE)]),
    "bicubic": v2.Compose([v2.Resize(SIDE, InterpolationMode.BICUBIC), v2.CenterCrop(SIDE)]),
}
Decode = Callable[[bytes], Any]


def photographs(folder: Path) -> list[Path]:
    """A part of each photograph, 4:3, as JPEG files of 500 x 375 pixels."""
    random, files = np.random.default_rng(0), []
    pictures = [open_picture(one) for one in PICTURES]
    (folder / "a").mkdir(parents=True)
    for number, picture in enumerate(pictures):
        width, height = picture.size
        unit = min(width / 4, height / 3) * random.uniform(0.7, 1)
        across, down = int(4 * unit), int(3 * unit)
        left = int(random.integers(width - across + 1))
        top = int(random.integers(height - down + 1))
        part = picture.crop((left, top, left + across, top + down))
        files.append(folder / "a" / f"{number:03d}.jpg")
        part.resize((500, 375), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def decoders() -> dict[str, Decode]:
    """Library -> its decoder, to uint8 (H, W, 3), of those that are installed."""
    found: dict[str, Decode] = {
        "Pillow": lambda content: np.asarray(Image.open(BytesIO(content)).convert("RGB")),
        "torchvision.io": lambda content: decode_jpeg(
            torch.frombuffer(bytearray(content), dtype=torch.uint8)
        ),
    }

    def there(module: str) -> bool:
        return importlib.util.find_spec(module) is not None

    if there("simplejpeg"):
        import simplejpeg

        found["simplejpeg"] = simplejpeg.decode_jpeg
    if there("imagecodecs"):
        import imagecodecs

        found["imagecodecs"] = imagecodecs.jpeg8_decode
    if there("cv2"):
        import cv2

        cv2.setNumThreads(1)
        found["OpenCV"] = lambda content: cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB
        )
    return found


def neighbours() -> dict[str, tuple[Decode, Decode | None]]:
    """What other loaders do -> from the file's bytes to the square, and the decoder in it."""
    found: dict[str, tuple[Decode, Decode | None]] = {}
    for filter_name, crop in CROPS.items():
        found[f"torchvision, PIL {filter_name}"] = (
            lambda content, crop=crop: np.asarray(
                crop(Image.open(BytesIO(content)).convert("RGB"))
            ),
            None,
        )
    for name, decode in decoders().items():
        if name == "torchvision.io":
            for filter_name, crop in CROPS.items():
                found[f"torchvision.io, tensor {filter_name}"] = (
                    lambda content, decode=decode, crop=crop: crop(decode(content)),
                    lambda content, decode=decode: decode(content).permute(1, 2, 0).numpy(),
                )
        elif name != "Pillow":
            for filter_name, crop in CROPS.items():
                found[f"{name}, PIL {filter_name}"] = (
                    lambda content, decode=decode, crop=crop: np.asarray(
                        crop(Image.fromarray(decode(content)))
                    ),
                    decode,
                )
    return found


def measure(what: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """Name -> images per second of processor time, the best of all rounds, taken in turns."""
    best = dict.fromkeys(what, 0.0)
    for _ in range(rounds):
        for name, (run, images) in what.items():
            began = time.process_time()
            run()
            best[name] = max(best[name], images / (time.process_time() - began))
    return best


def jpegs(folder: Path, rounds: int) -> None:
    files = photographs(folder)
    cache = folder.with_name("scans")
    scanned = {
        fit: scan(OwnData(name="own", kind="folder", place=str(folder), crop=fit), cache=cache)
        for fit in FITS
    }
    whole = np.arange(COUNT)
    buffer = np.empty((COUNT, SIDE, SIDE, 3), np.uint8)
    what: dict[str, tuple[Callable[[], object], int]] = {}
    same: dict[str, str] = {}

    def streamed(fit: str, crop: str) -> Callable[[], None]:
        stream = StreamSet(scanned[fit], resolution=SIDE, threads=1, crop=crop)  # type: ignore[arg-type]  # names
        places = stream.sampler(0).draw(0, COUNT).places

        def run() -> None:
            with stream.reading() as read:
                read(whole, places, buffer)

        return run

    what["ours, center (bilinear)"] = (streamed("center", "center"), COUNT)
    what["ours, adm (bicubic)"] = (streamed("adm", "center"), COUNT)
    what["ours, random-resized (bilinear)"] = (streamed("center", "random-resized"), COUNT)
    for name, (load, decode) in neighbours().items():
        what[name] = (lambda load=load: [load(file.read_bytes()) for file in files], COUNT)
        if decode is not None:
            pillow = decoders()["Pillow"]
            contents = [file.read_bytes() for file in files]
            equal = all(np.array_equal(decode(one), pillow(one)) for one in contents)
            same[name] = "same bytes as Pillow" if equal else "other bytes than Pillow"
    report("JPEG 500 x 375 to 256 px", measure(what, rounds), AIM_JPEG, same)


def rows(folder: Path, rounds: int) -> None:
    random = np.random.default_rng(0)
    np.save(folder / "samples.npy", random.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8))
    np.save(folder / "labels.npy", np.zeros(ROWS, np.int64))
    samples = open_prepared(folder)
    draw = samples.sampler(0).draw(0, BATCH)
    buffer = np.empty((BATCH, *samples.sample_shape), np.uint8)
    with samples.reading() as read:
        what: dict[str, tuple[Callable[[], object], int]] = {
            "ours, into the buffer that goes to a GPU": (
                lambda: read(draw.indices, None, buffer),
                BATCH,
            ),
            "ours, mirrored and channels first, for a CPU": (
                lambda: [read(draw.indices, None, buffer), channels_first(buffer, draw.flips)],
                BATCH,
            ),
            "mapped, the same in NumPy": (lambda: in_numpy(samples, draw), BATCH),
            "mapped, one by one, as a Dataset does": (lambda: one_by_one(samples, draw), BATCH),
        }
        report("Prepared array, 256 px", measure(what, rounds), AIM_ROWS, {})


def in_numpy(samples: SampleSet, draw: Draw) -> NDArray[np.uint8]:
    """How batches were made before they were read by position."""
    picked = samples.samples[draw.indices]
    picked[draw.flips] = picked[draw.flips][..., ::-1, :]
    return np.ascontiguousarray(np.moveaxis(picked, -1, 1))


def one_by_one(samples: SampleSet, draw: Draw) -> torch.Tensor:
    images = (torch.from_numpy(np.array(samples.samples[one])) for one in draw.indices)
    return torch.stack(
        [
            image.permute(2, 0, 1).flip(-1) if flip else image.permute(2, 0, 1)
            for image, flip in zip(images, draw.flips, strict=True)
        ]
    )


def report(title: str, speeds: dict[str, float], aim: float, same: dict[str, str]) -> None:
    print(f"\n{title}: images per second of processor time (aim: {aim})")
    first = next(iter(speeds.values()))
    for name, speed in speeds.items():
        print(f"  {name:46s} {speed:8,.0f}   {speed / first:5.2f}   {same.get(name, '')}".rstrip())


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        jpegs(Path(folder) / "jpeg", rounds)
        (Path(folder) / "array").mkdir()
        rows(Path(folder) / "array", rounds)


if __name__ == "__main__":
    main()
