"""Where do images come from, and which image comes next? Prepared arrays and a resumable sampler.

A data set is prepared once, into one uint8 array on disk that training maps into memory. What it
holds follows from its name, the resolution and the number of images alone, and so does its content
identity: sources by SHA-256 and a recipe version, never paths.

`photos-train` and `photos-eval` are real colour photographs that come with pip packages. Every
picture is divided once into a training and an evaluation region with a gap between them; a crop is
cut out of its region before it is resized, so no evaluation pixel can reach a training crop, not
even through the support of the resize filter or a shared JPEG block.

Which sample comes next is a function of (seed, position): a permutation a pass, drawn from a
counter-based generator, and an offset. Nothing has to be replayed to resume, and the number of
workers cannot change it. No torch here: images leave as numpy arrays.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitok_core.errors import DataError, Stopped

if TYPE_CHECKING:
    from PIL.Image import Image

RECIPE = 1
"""Version of everything below that decides which pixels a crop has; part of the identity."""

EVAL_SHARE = 0.4
"""Part of each picture, along its longer side, that is for evaluation only."""

GAP = 16
"""Pixels between the regions: a JPEG block with halved chroma is 16 pixels wide."""

Side = Literal["left", "right", "top", "bottom"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One source photograph.

    Attributes:
        name: for people.
        package: import name of the pip package that ships the file.
        install: what pip calls that package.
        file: path relative to the package's folder.
        sha256: of the file, 64 hex digits.
        licence: as the package states it.
        author: whom to credit.
        width: in pixels.
        height: in pixels.
        eval_side: edge at which the evaluation region lies; on the longer axis, and chosen so that
            both regions show something of the subject.
    """

    name: str
    package: str
    install: str
    file: str
    sha256: str
    licence: str
    author: str
    width: int
    height: int
    eval_side: Side

    def region(self, split: Split) -> Box:
        """The region of a split, (left, top, right, bottom); right and bottom lie outside."""
        across = self.eval_side in ("left", "right")
        length = self.width if across else self.height
        band = round(EVAL_SHARE * length)
        if self.eval_side in ("left", "top"):
            start, stop = (0, band) if split == "eval" else (band + GAP, length)
        else:
            start, stop = (length - band, length) if split == "eval" else (0, length - band - GAP)
        return (start, 0, stop, self.height) if across else (0, start, self.width, stop)

    @property
    def largest_crop(self) -> int:
        """Side in pixels of the largest square that fits both regions."""
        boxes = (self.region("train"), self.region("eval"))
        return min(min(right - left, bottom - top) for left, top, right, bottom in boxes)


Split = Literal["train", "eval"]

PICTURES: tuple[Picture, ...] = (
    Picture(
        name="astronaut",
        package="skimage",
        install="scikit-image",
        file="data/astronaut.png",
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        licence="public domain",
        author="NASA (portrait of Eileen Collins)",
        width=512,
        height=512,
        eval_side="right",
    ),
    Picture(
        name="chelsea",
        package="skimage",
        install="scikit-image",
        file="data/chelsea.png",
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        licence="CC0-1.0",
        author="Stefan van der Walt",
        width=451,
        height=300,
        eval_side="right",
    ),
    Picture(
        name="coffee",
        package="skimage",
        install="scikit-image",
        file="data/coffee.png",
        sha256="cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        licence="CC0-1.0",
        author="Rachel Michetti, courtesy of Pikolo Espresso Bar",
        width=600,
        height=400,
        eval_side="right",
    ),
    Picture(
        name="rocket",
        package="skimage",
        install="scikit-image",
        file="data/rocket.jpg",
        sha256="c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        licence="public domain",
        author="SpaceX (launch of DSCOVR)",
        width=640,
        height=427,
        eval_side="right",
    ),
    Picture(
        name="hubble_deep_field",
        package="skimage",
        install="scikit-image",
        file="data/hubble_deep_field.jpg",
        sha256="3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        licence="public domain",
        author="NASA (Hubble eXtreme Deep Field)",
        width=1000,
        height=872,
        eval_side="right",
    ),
    Picture(
        name="retina",
        package="skimage",
        install="scikit-image",
        file="data/retina.jpg",
        sha256="38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        licence="CC0-1.0",
        author="Mikael Haggstrom",
        width=1411,
        height=1411,
        eval_side="right",
    ),
    Picture(
        name="china",
        package="sklearn",
        install="scikit-learn",
        file="datasets/images/china.jpg",
        sha256="8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        licence="CC-BY-2.0",
        author="danielbuechele (flickr.com/photos/danielbuechele/6061409035)",
        width=640,
        height=427,
        eval_side="left",
    ),
    Picture(
        name="flower",
        package="sklearn",
        install="scikit-learn",
        file="datasets/images/flower.jpg",
        sha256="a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        licence="CC-BY-2.0",
        author="vultilion (flickr.com/photos/vultilion/6056698931)",
        width=640,
        height=427,
        eval_side="left",
    ),
    Picture(
        name="grace_hopper",
        package="matplotlib",
        install="matplotlib",
        file="mpl-data/sample_data/grace_hopper.jpg",
        sha256="a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
        licence="public domain",
        author="James S. Davis, United States Navy",
        width=512,
        height=600,
        eval_side="bottom",
    ),
)
"""The photographs, in the order of their class indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """A data set that can be prepared.

    Attributes:
        name: key in studies and results.
        split: region of each picture that crops are cut from.
        classes: number of labels; label k is picture k.
        about: one sentence for people.
    """

    name: str
    split: Split
    classes: int
    about: str


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="photos-train",
            split="train",
            classes=len(PICTURES),
            about="Random square crops of nine photographs that pip packages ship.",
        ),
        DatasetInfo(
            name="photos-eval",
            split="eval",
            classes=len(PICTURES),
            about="Crops of the same nine photographs, from regions kept out of photos-train.",
        ),
    )
}
"""Every data set by name."""


def dataset(name: str) -> DatasetInfo:
    """Look a data set up.

    Raises:
        DataError: there is none of that name.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DataError(f"{name!r} is no data set; there are {', '.join(DATASETS)}{hint}")
    return DATASETS[name]


def content_identity(name: str) -> dict[str, Any]:
    """What decides the pixels of a data set, as plain data; reads no file.

    Raises:
        DataError: there is no data set of that name.
    """
    info = dataset(name)
    return {
        "data": "photos",
        "recipe": RECIPE,
        "split": info.split,
        "sources": [{"name": picture.name, "sha256": picture.sha256} for picture in PICTURES],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Which pixels become one image.

    Attributes:
        picture: index into `PICTURES`, also the label.
        box: (left, top, right, bottom) in pixels of the picture, right and bottom outside.
    """

    picture: int
    box: Box


def plan_crop(name: str, *, resolution: int, index: int) -> Crop:
    """The crop behind image `index`; depends on nothing but the arguments.

    Pictures take turns. The side is log-uniform between the resolution and the largest square that
    fits both regions of the picture, so train and eval show the same scales and crops are only
    ever reduced. A picture whose largest square is below the resolution (180 px at worst, so
    never up to there) gives crops of that largest size, which are then enlarged.

    Raises:
        DataError: there is no data set of that name.
    """
    info = dataset(name)
    number = index % len(PICTURES)
    picture = PICTURES[number]
    random = np.random.Philox(key=_crop_key(name, resolution), counter=[index, 0, 0, 0])
    # Raw 64-bit words: numpy guarantees their stream, but not that of its distributions.
    scale, across, down = (float(word >> np.uint64(11)) * 2.0**-53 for word in random.random_raw(3))
    largest = picture.largest_crop
    smallest = min(resolution, largest)
    side = min(largest, round(smallest * (largest / smallest) ** scale))
    left, top, right, bottom = picture.region(info.split)
    x = left + int(across * (right - left - side + 1))
    y = top + int(down * (bottom - top - side + 1))
    return Crop(picture=number, box=(x, y, x + side, y + side))


@lru_cache(maxsize=16)
def _crop_key(name: str, resolution: int) -> int:
    text = f"vitok photos {RECIPE} {name} {resolution}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInfo:
    """What `prepare` has written.

    Attributes:
        name: of the data set.
        resolution: side of an image in pixels.
        images: number of images.
        samples_bytes: size of samples.npy.
        samples_sha256: of samples.npy.
        labels_sha256: of labels.npy.
    """

    name: str
    resolution: int
    images: int
    samples_bytes: int
    samples_sha256: str
    labels_sha256: str


def prepare(
    name: str,
    *,
    resolution: int,
    images: int,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> PreparedInfo:
    """Cut `images` images and write samples.npy (uint8, N x H x W x 3) and labels.npy (int64, N).

    Args:
        name: key into `DATASETS`.
        resolution: side of an image in pixels, at least 8.
        images: how many, at least 1; image i does not depend on it.
        folder: where the two files go; made if missing. Each is written whole or not at all.
        progress: told (done, total) every 256 images.
        should_stop: asked every 256 images.

    Raises:
        DataError: unknown name, numbers out of range, or a source picture that is missing or not
            the pinned one.
        Stopped: `should_stop` said so; nothing was written.
        OSError: the disk is full or the folder cannot be written.
    """
    from PIL import Image

    dataset(name)
    if resolution < 8 or images < 1:
        raise DataError(
            f"{name}: resolution = {resolution} and images = {images}; "
            "at least 8 px and 1 image are needed"
        )
    sources = [_open_picture(picture) for picture in PICTURES]
    labels = np.empty(images, np.int64)
    shape = (images, resolution, resolution, 3)

    def write_images(file: IO[bytes]) -> None:
        # Written, not memory-mapped: a full disk is then an error and not a bus error.
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for index in range(images):
            if index % 256 == 0:
                _report(index, images, progress, should_stop)
            crop = plan_crop(name, resolution=resolution, index=index)
            labels[index] = crop.picture
            # Cropped first and resized then, so that no pixel outside the box is ever read.
            cut = sources[crop.picture].crop(crop.box)
            small = cut.resize((resolution, resolution), Image.Resampling.BICUBIC)
            file.write(small.tobytes())
        _report(images, images, progress, None)

    folder.mkdir(parents=True, exist_ok=True)
    samples_sha256 = _write_whole(folder / "samples.npy", write_images)
    labels_sha256 = _write_whole(folder / "labels.npy", lambda file: np.save(file, labels))
    return PreparedInfo(
        name=name,
        resolution=resolution,
        images=images,
        samples_bytes=(folder / "samples.npy").stat().st_size,
        samples_sha256=samples_sha256,
        labels_sha256=labels_sha256,
    )


def _report(
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    if should_stop is not None and should_stop():
        raise Stopped(f"preparing stopped at image {done} of {total}; nothing was written")
    if progress is not None:
        progress(done, total)


def _open_picture(picture: Picture) -> Image:
    """The decoded picture, after its file's hash has been checked."""
    from io import BytesIO

    from PIL import Image

    spec = importlib.util.find_spec(picture.package)
    if spec is None or spec.origin is None:
        raise DataError(
            f"the picture {picture.name} comes with {picture.install}, which is not installed; "
            f"run: pip install {picture.install}"
        )
    path = Path(spec.origin).parent / picture.file
    if not path.is_file():
        raise DataError(f"{path} is missing; run: pip install --force-reinstall {picture.install}")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != picture.sha256:
        raise DataError(
            f"{path} is not the picture this data set is made of: its SHA-256 is {found}, expected "
            f"{picture.sha256}; install another version of {picture.install}"
        )
    with Image.open(BytesIO(data)) as image:
        return image.convert("RGB")


def _write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> str:
    """Write a file under a temporary name, fsync, rename; the SHA-256 of what was written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """A prepared data set.

    Attributes:
        samples: uint8, (N, H, W, 3), H = W; mapped from disk, read-only.
        labels: int64, (N,).
    """

    samples: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def resolution(self) -> int:
        """Side of an image in pixels."""
        return int(self.samples.shape[1])

    def first(self, count: int) -> SampleSet:
        """The first `count` images, without copying.

        Raises:
            DataError: there are fewer.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"{count} images were asked for, the set has {len(self)}")
        return SampleSet(samples=self.samples[:count], labels=self.labels[:count])

    def batch(
        self, indices: NDArray[np.int64], flips: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """A copy of some images, (B, 3, H, W); those with a True in `flips` mirrored left-right."""
        picked: NDArray[np.uint8] = self.samples[indices]
        if flips is not None:
            picked[flips] = picked[flips, :, ::-1]
        return np.ascontiguousarray(picked.transpose(0, 3, 1, 2))


def open_prepared(folder: Path) -> SampleSet:
    """Map what `prepare` wrote.

    Raises:
        DataError: a file is missing or does not hold what it should.
    """
    arrays = []
    for name in ("samples.npy", "labels.npy"):
        try:
            arrays.append(np.load(folder / name, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError as error:
            raise DataError(
                f"{folder / name} does not exist; prepare the data set first"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder / name} is damaged: {error}; prepare it again") from error
    images, labels = arrays
    square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    if not square or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{folder} holds images {images.dtype} {images.shape} and labels {labels.shape}; "
            "expected uint8 (N, H, H, 3) and (N,)"
        )
    return SampleSet(samples=images, labels=labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Some consecutive samples of the endless sequence.

    Attributes:
        indices: int64, (B,), into the data set.
        flips: bool, (B,), which of them to mirror.
    """

    indices: NDArray[np.int64]
    flips: NDArray[np.bool_]


class Sampler:
    """The endless sequence of samples: every pass shows each of `size` samples once, shuffled.

    Sample and augmentation at a position follow from (seed, position) alone, so a position, an
    integer, is all that a checkpoint needs.

    Args:
        size: samples of the data set, at least 1.
        seed: 0 <= seed < 2^63.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1 or not 0 <= seed < 2**63:
            raise DataError(
                f"size = {size} and seed = {seed}: needed are at least 1 sample and a seed from 0 "
                "to 2^63 - 1"
            )
        self.size, self.seed = size, seed
        # Two passes: a batch may reach from one into the next.
        self._pass = lru_cache(maxsize=2)(self._shuffled)

    def draw(self, position: int, count: int) -> Draw:
        """The samples at positions position, ..., position + count - 1."""
        indices = np.empty(count, np.int64)
        flips = np.empty(count, np.bool_)
        done = 0
        while done < count:
            epoch, offset = divmod(position + done, self.size)
            order, mirrored = self._pass(epoch)
            taken = order[offset : offset + count - done]
            indices[done : done + len(taken)] = taken
            flips[done : done + len(taken)] = mirrored[taken]
            done += len(taken)
        return Draw(indices=indices, flips=flips)

    def _shuffled(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The order of one pass and, by index, which samples it mirrors."""
        words = np.random.Philox(key=[self.seed, epoch]).random_raw(2 * self.size)
        order = np.argsort(words[: self.size], kind="stable")
        return order, words[self.size :] >> np.uint64(63) == 1
