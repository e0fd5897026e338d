"""Do own data sets give the samples, labels and reports they should, whatever lies in a folder?"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_files import (
    BROKEN,
    HANDLED,
    SIDE,
    encoded,
    kinds_of_pictures,
    many_tiny,
    picture_folder,
    pixels,
    png,
    shard,
    shards,
    sound,
    video,
)
from PIL import Image

from vitok_core.data import (
    DATASETS,
    OwnData,
    find_scan,
    open_prepared,
    open_scan,
    prepare_own,
    scan,
    square,
)
from vitok_core.data._footage import choose_frames
from vitok_core.data._listing import ScanProgress
from vitok_core.data._own import expand_braces
from vitok_core.data._own_prepare import order_of
from vitok_core.data._pixels import Unusable, read_square
from vitok_core.errors import DataError, Stopped

KEY = bytes(32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))


def folder_set(place: Path, **more: object) -> OwnData:
    return OwnData(name="own", kind="folder", place=str(place), **more)  # type: ignore[arg-type]


def shard_set(place: str, **more: object) -> OwnData:
    return OwnData(name="own", kind="webdataset", place=place, **more)  # type: ignore[arg-type]


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (97, 64), (64, 97), (33, 250), (20, 11), (16, 16)])
@pytest.mark.parametrize("resolution", [16, 24])
def test_a_center_crop_is_torchvisions(size: tuple[int, int], resolution: int) -> None:
    from torchvision import transforms

    image = Image.fromarray(pixels(1, *size))
    theirs = transforms.Compose([transforms.Resize(resolution), transforms.CenterCrop(resolution)])(
        image
    )
    assert np.array_equal(square(image, resolution, "center"), np.asarray(theirs))


def test_an_adm_crop_halves_by_box_averages() -> None:
    image = pixels(2, 64, 64)
    halved = image.astype(np.int64)
    for _ in range(2):
        # Pillow goes across and then down, and rounds halves up each time.
        halved = (halved[:, ::2] + halved[:, 1::2] + 1) // 2
        halved = (halved[::2] + halved[1::2] + 1) // 2
    # 16 px of 64: halved twice, and then it has the size already.
    assert np.array_equal(square(Image.fromarray(image), 16, "adm"), halved)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([8, 16, 31]),
    st.sampled_from(["adm", "center"]),
)
def test_every_square_has_its_size_and_no_foreign_colour(
    width: int, height: int, resolution: int, crop: str
) -> None:
    plain = Image.new("RGB", (width, height), (200, 100, 50))
    got = square(plain, resolution, crop)  # type: ignore[arg-type]
    assert got.shape == (resolution, resolution, 3)
    assert (got == (200, 100, 50)).all()


@given(
    st.integers(8, 200),
    st.integers(8, 200),
    st.sampled_from([8, 16, 31]),
    st.sampled_from(["adm", "center"]),
    st.sampled_from([(0.5, 0.5), (0.0, 0.3), (0.99, 0.7)]),
)
def test_a_square_is_cut_out_of_the_whole_scaled_picture(
    width: int, height: int, resolution: int, crop: str, place: tuple[float, float]
) -> None:
    """The two ways, written once more: neither may ever give other bytes."""
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    image = whole = Image.fromarray(noise)
    if crop == "adm":
        while min(whole.size) >= 2 * resolution:
            halves = (whole.width // 2, whole.height // 2)
            whole = whole.resize(halves, Image.Resampling.BOX)
        scale = resolution / min(whole.size)
        size = tuple(max(resolution, round(side * scale)) for side in whole.size)
        whole = whole.resize(size, Image.Resampling.BICUBIC)
        corner = [(side - resolution) // 2 for side in whole.size]
    else:
        long = int(resolution * max(width, height) / min(width, height))
        size = (resolution, long) if width <= height else (long, resolution)
        whole = whole.resize(size, Image.Resampling.BILINEAR)
        corner = [round((side - resolution) / 2) for side in whole.size]
    if place != (0.5, 0.5):
        corner = [int(at * (side - resolution + 1)) for at, side in zip(place, size, strict=True)]
    left, top = corner
    expected = whole.crop((left, top, left + resolution, top + resolution))
    got = square(image, resolution, crop, place)  # type: ignore[arg-type]  # one of both
    assert np.array_equal(got, np.asarray(expected))


def read(content: bytes) -> np.ndarray:
    return read_square(content, resolution=SIDE, crop="adm").pixels


def test_conversions_keep_the_picture() -> None:
    files, image = kinds_of_pictures(), pixels(1)
    assert np.array_equal(read(files["01-plain.png"]), image)
    assert np.array_equal(read(files["04-webp.webp"]), image)
    assert np.abs(read(files["05-cmyk.jpg"]).astype(int) - image).mean() < 12
    assert np.abs(read(files["06-palette.png"]).astype(int) - image).mean() < 12
    grey = read(files["08-grey.png"])
    assert np.array_equal(
        grey, np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, 2)
    )
    # Half clear: half way to white.
    expected = pixels(2).astype(float) * 128 / 255 + 127
    assert np.abs(read(files["07-alpha.png"]) - expected).max() <= 1.5
    assert np.array_equal(read(files["10-sixteen-grey.png"])[..., 1], pixels(3)[..., 0])
    assert np.array_equal(read(files["11-sixteen-colours.png"]), pixels(3))
    # Orientation 6: to be turned clockwise by a quarter.
    turned = np.rot90(pixels(1), -1).astype(int)
    assert np.abs(read(files["12-turned.jpg"]) - turned).mean() < 12
    assert np.abs(read(files["13-animated.gif"]).astype(int) - pixels(4)).mean() < 12


@settings(deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
)
def test_any_bytes_are_a_picture_or_refused(noise: bytes, form: str) -> None:
    whole = encoded(Image.fromarray(pixels(1, 8, 8)), form)
    place = len(noise) % len(whole)
    for content in (noise, whole[:place] + noise, whole[:place] + noise + whole[place:]):
        try:
            got = read_square(content, resolution=8, crop="adm")
        except Unusable as error:
            assert error.why
        else:
            assert got.pixels.shape == (8, 8, 3)


# --- a folder of everything -----------------------------------------------------------------------


def test_a_folder_of_all_kinds_has_a_right_report(tmp_path: Path) -> None:
    place, files = tmp_path / "all", kinds_of_pictures()
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    (place / "read me.txt").write_text("no picture by its ending")
    (place / ".hidden.png").write_bytes(png(1))
    (place / "gone.png").symlink_to(place / "nowhere.png")
    (place / "self.png").symlink_to(place / "self.png")
    (place / "loop").symlink_to(place)
    os.mkfifo(place / "pipe.png")
    own = folder_set(place, labels=False, broken_share=0.5)
    scanned = scan(own)
    assert {why: names for why, (_, names) in scanned.left_out.items()} == {
        "hidden": (".hidden.png",),
        "link to nothing": ("gone.png",),
        "link into a loop": ("loop", "self.png"),
        "no regular file": ("pipe.png",),
        "not such a file by its ending": ("read me.txt",),
    }
    assert scanned.samples == len(files)
    info = prepare_own(scanned, resolution=16, images=len(files), folder=tmp_path / "out")
    assert {one.name: one.why for one in info.broken} == BROKEN
    assert info.handled == HANDLED
    assert (info.read, info.images) == (len(files), len(files) - len(BROKEN))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {one["name"]: one["why"] for one in report["broken"]} == BROKEN
    prepared = open_prepared(tmp_path / "out")
    assert len(prepared) == info.images
    whole = [name for name in np.array(sorted(files))[order_of(len(files))] if name not in BROKEN]
    for name, sample in zip(whole, prepared.samples, strict=True):
        assert np.array_equal(read_square(files[name], resolution=16, crop="adm").pixels, sample)


def test_more_broken_files_than_allowed_are_an_error_that_names_them(tmp_path: Path) -> None:
    place = picture_folder(tmp_path / "set", {"a": 30})
    for number in (3, 4):
        (place / "a" / f"{number:04d}.png").write_bytes(b"")
    own = folder_set(place, broken_share=0.04)
    with pytest.raises(DataError, match=r"2 of the first \d+ files .*1 of 30 .*empty"):
        prepare_own(scan(own), resolution=8, images=30, folder=tmp_path / "out")
    allowed = folder_set(place, broken_share=0.08)
    info = prepare_own(scan(allowed), resolution=8, images=30, folder=tmp_path / "out")
    assert (info.images, info.read, len(info.broken)) == (28, 30, 2)
    # Where fewer are asked for, the next whole file takes the place of a broken one.
    fewer = prepare_own(scan(allowed), resolution=8, images=28, folder=tmp_path / "fewer")
    assert (fewer.images, fewer.read) == (28, 30)


def test_an_unreadable_folder_or_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        scan(folder_set(tmp_path / "none"))
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "a" / "x.txt").write_text("")
    with pytest.raises(DataError, match=r"no picture in .*1 not such a file by its ending"):
        scan(folder_set(tmp_path / "empty"))


# --- scans ----------------------------------------------------------------------------------------


def test_classes_are_the_first_sub_folders(tmp_path: Path) -> None:
    place = picture_folder(tmp_path / "set", {"b": 2, "a": 3, "d": 1})
    (place / "c").mkdir()
    (place / "a" / "deep").mkdir()
    (place / "a" / "deep" / "x.png").write_bytes(png(9))
    scanned = scan(folder_set(place))
    assert scanned.class_names == ("a", "b", "c", "d")
    assert (scanned.classes, scanned.empty_classes) == (4, ("c",))
    names = [scanned.name(index) for index in range(scanned.samples)]
    assert names == sorted(names)
    assert list(scanned.entries["label"]) == ["abcd".index(name[0]) for name in names]
    (place / "stray.png").write_bytes(png(1))
    with pytest.raises(DataError, match=r"stray\.png lies next to .*labels: false"):
        scan(folder_set(place))
    without = scan(folder_set(place, labels=False))
    assert (without.samples, without.classes, set(without.entries["label"])) == (8, 1, {0})


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.sampled_from(["a.png", "a/x.png", "a/y.png", "ab/x.png", "a-b.png", "b/é.png"]),
        unique=True,
        min_size=1,
    )
)
def test_the_order_is_that_of_the_names_as_bytes(names: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_bytes(png(1, 8, 8))
        found = scan(folder_set(Path(folder), labels=False), cache=Path(folder) / ".cache")
        got = [found.name(index) for index in range(found.samples)]
    assert got == sorted(names, key=os.fsencode)


def test_identity_is_content_and_not_place(tmp_path: Path) -> None:
    here = scan(folder_set(picture_folder(tmp_path / "here", {"a": 3, "b": 2})))
    there = scan(folder_set(picture_folder(tmp_path / "there", {"a": 3, "b": 2})))
    assert here.identity() == there.identity()
    assert str(tmp_path) not in json.dumps(here.identity())
    assert find_scan(here.identity()).content == here.content
    # A data set that was moved and scanned again is looked for at its new place.
    assert find_scan(here.identity()).own.place == str(tmp_path / "there")
    other = scan(folder_set(tmp_path / "here", crop="center"))
    assert other.identity() == {**here.identity(), "crop": "centre"}
    for change in ("byte", "name", "class"):
        place = picture_folder(tmp_path / change, {"a": 3, "b": 2})
        if change == "byte":
            (place / "a" / "0001.png").write_bytes(png(77))
        elif change == "name":
            (place / "a" / "0001.png").rename(place / "a" / "0001x.png")
        else:
            (place / "aa").mkdir()  # empty, but b is now class 2
        assert scan(folder_set(place)).content != here.content
    with pytest.raises(DataError, match="no scan of the data set with content"):
        find_scan({**here.identity(), "content": "0" * 64})


def test_a_second_scan_reads_what_changed_only(tmp_path: Path) -> None:
    own, told = folder_set(picture_folder(tmp_path / "set", {"a": 20, "c": 10})), []
    assert open_scan(own) is None
    first = scan(own, progress=told.append)
    assert (told[-1].units, told[-1].read_units, told[-1].samples) == (30, 30, 30)
    assert open_scan(own) is not None
    again = scan(own, progress=told.append)
    assert (told[-1].read_units, again.content) == (0, first.content)
    (tmp_path / "set" / "b").mkdir()
    (tmp_path / "set" / "b" / "0000.png").write_bytes(png(50))
    (tmp_path / "set" / "a" / "0003.png").unlink()
    (tmp_path / "set" / "c" / "0004.png").write_bytes(png(51))
    third = scan(own, progress=told.append)
    assert (told[-1].units, told[-1].read_units) == (30, 2)
    assert set(third.entries["label"]) == {0, 1, 2}
    fresh = scan(own, cache=tmp_path / "other cache")
    assert third.content == fresh.content


def test_a_scan_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitok_core.data._listing.REPORT_S", 0.0)
    own = folder_set(picture_folder(tmp_path / "set", {"a": 60}))
    told: list[ScanProgress] = []
    with pytest.raises(Stopped):
        scan(own, progress=told.append, should_stop=lambda: told[-1].units >= 25)
    assert open_scan(own) is None
    (part,) = (tmp_path / "scans").glob("own-*/units.part")
    with part.open("ab") as file:
        file.write(b'["a/0099')  # a line that a kill cut off
    done = scan(own, progress=told.append)
    assert told[-1].units == 60
    assert 0 < told[-1].read_units <= 60 - 24
    assert done.content == scan(own, cache=tmp_path / "fresh").content


def test_a_file_that_changed_after_the_scan_is_found(tmp_path: Path) -> None:
    place = picture_folder(tmp_path / "set", {"a": 3})
    scanned = scan(folder_set(place))
    (place / "a" / "0001.png").write_bytes(png(99))
    with pytest.raises(DataError, match=r"a/0001\.png is not the file that was scanned"):
        prepare_own(scanned, resolution=8, images=3, folder=tmp_path / "out")
    (place / "a" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"0001\.png cannot be read"):
        prepare_own(scanned, resolution=8, images=3, folder=tmp_path / "out")


def test_names_of_any_bytes_are_read_and_shown(tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    odd = os.fsdecode(b"\xff\nname.png")
    (place / odd).write_bytes(png(1))
    (place / "bad\udcfe.png").write_bytes(b"")
    scanned = scan(folder_set(place, labels=False, broken_share=1.0))
    assert [scanned.name(index) for index in range(2)] == ["bad\udcfe.png", odd]
    info = prepare_own(scanned, resolution=8, images=2, folder=tmp_path / "out")
    assert info.broken[0].name == "bad\\udcfe.png"
    info.broken[0].name.encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Has Capitals"}, "cannot be the name"),
        ({"kind": "zip"}, "there are folder, videos"),
        ({"crop": "middle"}, "there are adm, center"),
        ({"place": " "}, "no place"),
        ({"place": "s3://bucket/x"}, "only local files"),
        ({"broken_share": 1.5}, "from 0 to 1"),
        ({"split": "train"}, "about huggingface"),
        ({"kind": "huggingface", "place": "a/b", "split": "train"}, "commit is needed"),
        (
            {"kind": "huggingface", "place": "a/b", "split": "train", "revision": "main"},
            "40 hex digits, not 'main'",
        ),
        ({"kind": "huggingface", "place": "a/b", "revision": "0" * 40}, "give split"),
        ({"kind": "huggingface", "place": "/a", "revision": "0" * 40}, "has no revision"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused(change: dict[str, object], said: str) -> None:
    given_set = {"name": "own", "kind": "folder", "place": "/nowhere", **change}
    with pytest.raises(DataError, match=said):
        scan(OwnData(**given_set))  # type: ignore[arg-type]


# --- shards ---------------------------------------------------------------------------------------


def test_braces() -> None:
    assert expand_braces("a-{008..011}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]
    assert expand_braces("{x,y}/{1..2}") == ["x/1", "x/2", "y/1", "y/2"]
    assert expand_braces("plain") == ["plain"]
    for wrong in ("{5..1}", "{a..c}", "{0..99999999}"):
        with pytest.raises(DataError):
            expand_braces(wrong)


def test_shards_give_what_their_files_hold(tmp_path: Path) -> None:
    own = shard_set(shards(tmp_path / "set", 3, 7))
    scanned = scan(own)
    assert (scanned.samples, scanned.classes) == (21, 5)
    assert scanned.name(8) == "part-001.tar/00008.png"
    info = prepare_own(scanned, resolution=SIDE, images=21, folder=tmp_path / "out")
    prepared, order = open_prepared(tmp_path / "out"), order_of(21)
    for sample, label, index in zip(prepared.samples, prepared.labels, order, strict=True):
        assert np.array_equal(sample, pixels(int(index)))
        assert label == index % 5
    assert info.broken == ()
    globbed = scan(shard_set(str(tmp_path / "set" / "part-*.tar")))
    assert globbed.content == scanned.content


def test_shards_that_cannot_be_read_are_refused_with_their_path(tmp_path: Path) -> None:
    place = tmp_path / "set" / "x.tar"
    shard(place, [(f"{number}", {"png": png(number), "cls": b"1"}) for number in range(9)])
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.tar cannot be read as a tar file"):
        scan(shard_set(str(place)))
    with tarfile.open(place, "w:gz") as archive:
        archive.add(__file__, "a.py")
    with pytest.raises(DataError, match=r"x\.tar cannot be read as a tar file.*compressed"):
        scan(shard_set(str(place)))
    place.write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.tar cannot be read as a tar file"):
        scan(shard_set(str(place)))
    with pytest.raises(DataError, match=r"y\.tar cannot be read: No such file"):
        scan(shard_set(str(tmp_path / "set" / "{x,y}.tar")))
    with pytest.raises(DataError, match="no file is called like"):
        scan(shard_set(str(tmp_path / "set" / "z*.tar")))


def test_labels_of_shards(tmp_path: Path) -> None:
    place = tmp_path / "x.tar"
    shard(place, [("a", {"png": png(1)}), ("b", {"seg.png": png(2)}), ("c", {"png": png(3)})])
    assert list(scan(shard_set(str(place))).entries["label"]) == [0, 0, 0]
    shard(place, [("a", {"png": png(1), "cls": b"3\n"}), ("b", {"png": png(2)})])
    with pytest.raises(DataError, match=r"1 of 2 samples have no label.*b\.png.*labels: false"):
        scan(shard_set(str(place)))
    assert list(scan(shard_set(str(place), labels=False)).entries["label"]) == [0, 0]
    shard(place, [("a", {"png": png(1), "cls": b"cat"})])
    with pytest.raises(DataError, match=r"a\.cls holds b'cat'"):
        scan(shard_set(str(place)))


# --- Hugging Face ---------------------------------------------------------------------------------


def test_a_missing_library_says_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("datasets") is not None:
        pytest.skip("the library datasets is installed")
    with pytest.raises(DataError, match=r"sweepctl\[huggingface\]"):
        scan(OwnData(name="own", kind="huggingface", place=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")
def test_a_saved_hugging_face_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {
        "image": [{"bytes": png(seed), "path": None} for seed in range(11)],
        "label": [seed % 3 for seed in range(11)],
        "text": ["x"] * 11,
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["x", "y", "z"]),
            "text": datasets.Value("string"),
        }
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    place = tmp_path / "saved"
    datasets.DatasetDict({"train": made}).save_to_disk(str(place))

    def own(**more: object) -> OwnData:
        return OwnData(  # type: ignore[arg-type]
            **{"name": "own", "kind": "huggingface", "place": str(place), "split": "train", **more}
        )

    scanned = scan(own())
    assert (scanned.samples, scanned.class_names) == (11, ("x", "y", "z"))
    prepare_own(scanned, resolution=SIDE, images=11, folder=tmp_path / "out")
    prepared, order = open_prepared(tmp_path / "out"), order_of(11)
    for sample, label, index in zip(prepared.samples, prepared.labels, order, strict=True):
        assert np.array_equal(sample, pixels(int(index)))
        assert label == index % 3
    for wrong, said in (
        ({"split": "test"}, "has train"),
        ({"picture_column": "text"}, "holds no pictures"),
        ({"picture_column": "none"}, "no column 'none'"),
        ({"label_column": "text"}, "no whole numbers"),
        ({"place": str(tmp_path / "none")}, "cannot load"),
    ):
        with pytest.raises(DataError, match=said):
            scan(own(**wrong))
    assert scan(own(labels=False)).classes == 1


# --- videos ---------------------------------------------------------------------------------------


def video_set(place: Path, **more: object) -> OwnData:
    return OwnData(name="own", kind="videos", place=str(place), **more)  # type: ignore[arg-type]


def greys(clip: np.ndarray) -> list[int]:
    """Numbers of a clip's frames: frame k of a test video is of the grey 4 k."""
    return [round(float(frame.mean()) / 4) for frame in clip]


def test_clips_are_consecutive_frames_or_the_nearest_in_time(tmp_path: Path) -> None:
    pytest.importorskip("av")
    place = tmp_path / "set"
    for name, frames in (("a/1.mkv", 20), ("a/2.mkv", 30), ("b/3.mkv", 25)):
        video(place / name, frames=frames)
    scanned = scan(video_set(place))
    assert (scanned.samples, scanned.classes) == (3, 2)
    prepare_own(scanned, resolution=16, images=9, frames=8, folder=tmp_path / "out")
    prepared = open_prepared(tmp_path / "out")
    assert prepared.samples.shape == (9, 8, 16, 16, 3)
    numbers = [greys(clip) for clip in prepared.samples]
    assert all(np.array_equal(np.diff(one), np.ones(7)) for one in numbers)
    # Every round gives each video once, and another clip.
    assert len({(place, tuple(one)) for place, one in enumerate(numbers)}) == 9
    assert numbers[0] != numbers[3]
    assert list(prepared.labels[:3]) == list(prepared.labels[3:6])
    prepare_own(scanned, resolution=16, images=3, frames=4, fps=6.25, folder=tmp_path / "slow")
    for clip in open_prepared(tmp_path / "slow").samples:
        assert np.array_equal(np.diff(greys(clip)), np.full(3, 4))
    single = prepare_own(scanned, resolution=16, images=3, folder=tmp_path / "single")
    assert single.frames == 1
    assert open_prepared(tmp_path / "single").samples.shape == (3, 16, 16, 3)
    few = prepare_own(scanned, resolution=16, images=2, frames=8, folder=tmp_path / "few")
    assert few.images == 2
    assert np.array_equal(open_prepared(tmp_path / "few").samples, prepared.samples[:2])


def test_videos_that_give_no_clip_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("av")
    place = tmp_path / "set"
    video(place / "1-good.mkv", frames=20)
    video(place / "2-short.mkv", frames=5)
    times = [0, 60, 80, 160, 200, 210, 260, 300, 420, 440, 480, 500, 560, 600, 640, 700]
    video(place / "3-uneven.mkv", frames=16, times_ms=times)
    sound(place / "4-sound.mkv")
    (place / "5-text.mp4").write_text("no video")
    (place / "6-empty.mp4").write_bytes(b"")
    whole = (place / "1-good.mkv").read_bytes()
    (place / "7-cut.mkv").write_bytes(whole[:200])
    scanned = scan(video_set(place, broken_share=1.0))
    info = prepare_own(scanned, resolution=16, images=5, frames=8, folder=tmp_path / "out")
    assert {one.name: one.why for one in info.broken} == {
        "2-short.mkv": "too short",
        "4-sound.mkv": "no video stream",
        "5-text.mp4": "damaged",
        "6-empty.mp4": "damaged",
        "7-cut.mkv": "damaged",
    }
    assert info.images == 5
    assert info.handled["variable frame rate, by the times of the frames"] >= 1
    # By time: of the uneven one those frames that are nearest to every 100 ms.
    assert choose_frames(np.array(times) / 1000, key=KEY, turn=0, frames=8, fps=10.0) == [
        *(0, 2, 4, 7, 8, 11, 13, 15)
    ]


def test_a_turned_video_stands_upright(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV writes no rotation")
    left_is_bright = np.zeros((32, 48, 3), np.uint8)
    left_is_bright[:, :24] = 250
    (tmp_path / "set").mkdir()
    with av.open(str(tmp_path / "set" / "x.mov"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.set_display_rotation(90)
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(left_is_bright, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = prepare_own(
        scan(video_set(tmp_path / "set")),
        resolution=16,
        images=1,
        frames=3,
        folder=tmp_path / "out",
    )
    assert info.handled == {"turned by its rotation": 1}
    # A quarter turn counter-clockwise leads the left side to the bottom.
    (clip,) = open_prepared(tmp_path / "out").samples
    assert clip[:, 12:].min() > 200
    assert clip[:, :4].max() < 50


@given(
    st.lists(st.floats(0.01, 0.2), min_size=1, max_size=60),
    st.integers(1, 12),
    st.none() | st.floats(2.0, 40.0),
    st.binary(min_size=32, max_size=32),
)
def test_chosen_frames_rise_and_are_the_nearest(
    steps: list[float], frames: int, fps: float | None, key: bytes
) -> None:
    times = np.cumsum(steps)
    try:
        chosen = choose_frames(times, key=key, turn=0, frames=frames, fps=fps)
    except Unusable:
        return
    assert len(chosen) == frames
    assert all(0 <= one < len(times) for one in chosen)
    assert (np.diff(chosen) > 0).all()
    if fps is None:
        assert (np.diff(chosen) == 1).all()
    else:
        wanted = times[chosen[0]] + np.arange(frames) / fps
        least = np.abs(times[:, None] - wanted).min(axis=0)
        assert np.allclose(np.abs(times[chosen] - wanted), least)


def test_refusals_of_prepare(tmp_path: Path) -> None:
    scanned = scan(folder_set(picture_folder(tmp_path / "set", {"a": 3})))
    for wrong, said in (
        ({"images": 4}, "has 3 pictures, 4 cannot be had; give images = 3"),
        ({"images": 0}, "at least 1"),
        ({"resolution": 7}, "at least 8 px"),
        ({"frames": 2}, "has single images"),
        ({"fps": 8.0}, "fps = 8"),
    ):
        asked = {"resolution": 8, "images": 3, **wrong}
        with pytest.raises(DataError, match=said):
            prepare_own(scanned, folder=tmp_path / "out", **asked)
    assert "own" not in DATASETS


# --- going on -------------------------------------------------------------------------------------


def test_a_stopped_preparation_goes_on_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitok_core.data._own_prepare.CHUNK_SAMPLES", 10)
    monkeypatch.setattr("vitok_core.data._own_prepare.LOOK_S", 0.0)
    place = picture_folder(tmp_path / "set", {"a": 50, "b": 50})
    (place / "a" / "0007.png").write_bytes(b"")
    scanned = scan(folder_set(place, broken_share=0.02))
    whole = prepare_own(scanned, resolution=8, images=90, folder=tmp_path / "whole")
    stopped_at: list[int] = []
    told: list[int] = []
    for limit in (25, 58):
        told.clear()
        with pytest.raises(Stopped):
            prepare_own(
                scanned,
                resolution=8,
                images=90,
                folder=tmp_path / "parts",
                progress=lambda done, total: told.append(done),
                should_stop=lambda: bool(told) and told[-1] >= limit,  # noqa: B023
            )
        stopped_at.append(told[-1])
        assert not (tmp_path / "parts" / "samples.npy").exists()
    # One byte of a finished chunk is flipped: that chunk and what follows is made again.
    part = tmp_path / "parts" / "samples.part"
    with part.open("r+b") as file:
        file.seek(128 + 22 * 192)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    told.clear()
    info = prepare_own(
        scanned,
        resolution=8,
        images=90,
        folder=tmp_path / "parts",
        progress=lambda done, total: told.append(done),
    )
    assert stopped_at == [25, 58]
    assert 20 <= told[0] < 30
    assert info == whole
    for name in ("samples.npy", "labels.npy", "report.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(one.name for one in (tmp_path / "parts").iterdir()) == [
        *("labels.npy", "report.json", "samples.npy")
    ]
    fewer = prepare_own(scanned, resolution=8, images=30, folder=tmp_path / "fewer")
    assert fewer.images == 30
    first = open_prepared(tmp_path / "whole").samples[:30]
    assert np.array_equal(open_prepared(tmp_path / "fewer").samples, first)


def start(place: Path, kind: str, images: int, folder: Path) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("own_files.py")
    return subprocess.Popen(
        [sys.executable, str(program), str(place), kind, str(images), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )


@pytest.mark.slow
def test_100_000_pictures_in_flat_memory_and_after_a_kill(tmp_path: Path) -> None:
    place = many_tiny(tmp_path / "many.tar", 100_000)
    killed = start(place, "webdataset", 100_000, tmp_path / "parts")
    assert killed.stdout is not None
    for line in killed.stdout:
        if json.loads(line)["done"] > 40_000:
            os.kill(killed.pid, signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    resumed = start(place, "webdataset", 100_000, tmp_path / "parts")
    lines = [json.loads(line) for line in resumed.communicate()[0].splitlines()]
    assert resumed.returncode == 0
    assert 30_000 < lines[0]["done"] < 100_000
    few = start(place, "webdataset", 5_000, tmp_path / "few")
    small = json.loads(few.communicate()[0].splitlines()[-1])
    # At 8 px a picture of 8 px stays as it is, so the bytes are known without a second run.
    colours = np.random.default_rng(0).integers(0, 256, (100_000, 8, 8, 3), np.uint8)
    assert np.array_equal(open_prepared(tmp_path / "parts").samples, colours[order_of(100_000)])
    assert lines[-1]["images"] == 100_000
    # Twenty times the pictures, 19 MB of them: the numbers of the labels and of the order are all
    # that may grow.
    assert lines[-1]["grown_bytes"] - small["grown_bytes"] < 12 << 20
